package layout

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated files")

// TestGenerated compares the files that are made from the tables with what the tables say.
func TestGenerated(t *testing.T) {
	t.Parallel()
	source, err := Go()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"../../layout_gen.go": source, "../../lua/LAYOUT.md": Page()} {
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the tables say (%v): run go generate ./redisstore/...", name, err)
		}
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"local due = RUN_NUM(f.run, due)":                         "local due = (number('>I6', f.run, 8))",
		"RUN_NUM(run, state)":                                     "byte(run, 1)",
		"RUN_BYTES(runs[i], due, order)":                          "sub(runs[i], 8, 19)",
		"RUN_WITH(RUN_WITH(r, order, o), state, 'A')":             "'A' .. sub(sub(r, 1, 13) .. o .. sub(r, 20), 2)",
		"KEPT_MAKE(ended = NOW6) .. id":                           "NOW6 .. id",
		"KEPT_MAKE(ended = a and b or c) .. id":                   "(a and b or c) .. id",
		"PLACE_REST(list[i])":                                     "sub(list[i], 7)",
		"if HAS(flags, cancel) then":                              "if (flags % 16 >= 8) then",
		"FLAG(short, settled) + LASTING(r.flags)":                 "48 + (r.flags % 8 + r.flags - r.flags % 64)",
		"#task - TASK_LEN - TASK_NUM(task, envelope)":             "#task - 20 - (number('>I3', task, 18))",
		"OWNER_MAKE(mode = f(a, ',)'), until = pack('>I6'))":      "f(a, ',)') .. pack('>I6')",
		"DONE_MAKE(state = 'C', flags__size = x, ended__ran = y)": "'C' .. x .. y",
		"redis.call('HGET', RUN, id)":                             "redis.call('HGET', RUN, id)",
	} {
		if got, err := Expand(text); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
}

// TestExpandRefuses has what a change of a layout must not leave unseen.
func TestExpandRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"RUN_NUM(run, tenant)", "RUN_BYTES(run, order, due)", "RUN_REST(run, due)", "RUN_SUM(run)", "RUN_NUM(run, due",
		"OWNER_MAKE(mode = a)", "OWNER_MAKE(until = a, mode = b)", "OWNER_MAKE(mode = a, until = b, mode = c)",
		"FLAG(loud)", "HAS(flags)", "HAS(flags, loud)", "CONST(pi)", "RUN_WITH(run, tenant, x)",
	} {
		if got, err := Expand(text); err == nil {
			t.Errorf("%s became %q", text, got)
		}
	}
}

func TestLettersAreDifferent(t *testing.T) {
	t.Parallel()
	var seen string
	for _, list := range [][]Letter{States, PairCounters, QueueCounters} {
		for _, l := range list {
			if strings.IndexByte(seen, l.Letter) >= 0 {
				t.Errorf("%c stands for two things", l.Letter)
			}
			seen += string(l.Letter)
		}
	}
}
