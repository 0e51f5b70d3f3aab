package robustness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
)

// TestVersionSkew lets two versions of the command work on one store: one after the other in both orders, so that each
// reads what the other wrote, and both at once, where each takes over from the other's dead worker.
func TestVersionSkew(t *testing.T) {
	t.Parallel()
	present := buildVersion(t, "present", moduleRoot, nil)
	t.Run("commits", func(t *testing.T) {
		source := previousSource(t)
		previous := buildVersion(t, "previous", source, nil)
		for name, e := range engines {
			t.Run(name, func(t *testing.T) {
				if storedFormat(t, source, name) == storedFormat(t, moduleRoot, name) {
					skew(t, e, previous, present)
				} else {
					newerFormat(t, e, previous, present)
				}
			})
		}
	})
	// The same with other scripts on the server, also where the two commits have the same ones.
	t.Run("scripts", func(t *testing.T) {
		skew(t, engines["redis"], buildVersion(t, "other", moduleRoot, otherScripts(t)), present)
	})
	t.Run("a newer format", func(t *testing.T) {
		future := buildVersion(t, "future", moduleRoot, nextFormat(t))
		for name, e := range engines {
			t.Run(name, func(t *testing.T) { newerFormat(t, e, present, future) })
		}
		t.Run("under a worker", func(t *testing.T) {
			for name, e := range engines {
				t.Run(name, func(t *testing.T) { migratedUnder(t, e, present, future) })
			}
		})
	})
}

func skew(t *testing.T, e engine, previous, present *version) {
	for _, pair := range [][2]*version{{previous, present}, {present, previous}} {
		t.Run(pair[0].name+" writes", func(t *testing.T) {
			t.Parallel()
			s := newSkewSite(t, e)
			s.oneAfterTheOther(pair[0], pair[1])
		})
		t.Run(pair[0].name+" dies", func(t *testing.T) {
			t.Parallel()
			s := newSkewSite(t, e)
			s.takeOver(pair[0], pair[1])
		})
	}
	t.Run("at once", func(t *testing.T) {
		t.Parallel()
		s := newSkewSite(t, e)
		s.atOnce(previous, present)
	})
}

// skewSite is a store that versions of the command work on. At its end it is audited by the present version.
type skewSite struct {
	*testing.T
	url string
	dir string
}

func newSkewSite(t *testing.T, e engine) *skewSite {
	s := &skewSite{T: t, url: e.create(t), dir: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		store, err := openStore(context.Background(), s.url, 0) // t.Context() has ended
		if errors.Is(err, driver.ErrUnsupported) {
			return // of a newer format, which is what the test is about
		}
		must(t, err)
		defer store.Close()
		drivertest.Audit(t, store)
	})
	return s
}

// command prepares a version's command on the store.
func (s *skewSite) command(v *version, args ...string) *exec.Cmd {
	cmd := exec.Command(v.path, args...)
	cmd.Env = []string{"WAGGLE_STORE=" + s.url, "PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TZ=UTC"}
	return cmd
}

// try runs a command and returns what it prints and its exit code.
func (s *skewSite) try(v *version, in string, args ...string) (out, words string, code int) {
	s.Helper()
	cmd := s.command(v, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		s.Errorf("%s: %v", v.name, err)
		code = -1
	}
	return stdout.String(), stderr.String(), code
}

// run runs a command that has to succeed and returns what it prints.
func (s *skewSite) run(v *version, in string, args ...string) string {
	s.Helper()
	out, words, code := s.try(v, in, args...)
	if code != 0 {
		s.Errorf("the %s version: waggle %s: exit code %d\n%s", v.name, strings.Join(args, " "), code, words)
	}
	return out
}

// log is the file to which handlers of a name write the payloads they get.
func (s *skewSite) log(name string) string { return filepath.Join(s.dir, name+".log") }

// work runs all that there is of a type.
func (s *skewSite) work(v *version, typ string) {
	s.Helper()
	s.run(v, "", "work", "-q", "--until-empty", "--type", typ, "--", "sh", "-c", `echo "$1" >>"$0"; echo "$1 is done"`, s.log(typ), "{}")
}

// discard has all tasks of a type discarded. Versions tell that by exit code 7; the first ones did not.
func (s *skewSite) discard(v *version, typ string) {
	s.Helper()
	_, words, code := s.try(v, "", "work", "-q", "--until-empty", "--type", typ, "--", "sh", "-c", "echo out of order >&2; exit 65")
	if code != 0 && code != 7 {
		s.Errorf("the %s version: discarding the tasks of type %s: exit code %d\n%s", v.name, typ, code, words)
	}
}

// lines enqueues n tasks of a type and returns their payloads.
func (s *skewSite) lines(v *version, typ string, n int) []string {
	s.Helper()
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("%s-%d", v.name, i)
	}
	s.run(v, strings.Join(texts, "\n")+"\n", "enqueue", typ, "--lines")
	return texts
}

// wantRun checks that each payload was handled once.
func (s *skewSite) wantRun(typ string, want ...string) {
	s.Helper()
	text, err := os.ReadFile(s.log(typ))
	must(s, err)
	got := strings.Split(strings.TrimSpace(string(text)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("tasks of type %s that were run (-want +got):\n%s", typ, diff)
	}
}

// records returns all tasks as a version prints them, by id.
func (s *skewSite) records(v *version) map[string]map[string]any {
	s.Helper()
	var list []map[string]any
	must(s, json.Unmarshal([]byte(s.run(v, "", "task", "list", "-o", "json")), &list))
	byID := make(map[string]map[string]any)
	for _, r := range list {
		byID[fmt.Sprint(r["id"])] = r
	}
	return byID
}

// wantSameRecords checks that two versions read the same tasks. A field that one of them does not know is left out.
func (s *skewSite) wantSameRecords(a, b *version) {
	s.Helper()
	one, two := s.records(a), s.records(b)
	for id, r := range one {
		for field := range r {
			if _, known := two[id][field]; !known {
				delete(r, field)
			}
		}
		for field := range two[id] {
			if _, known := r[field]; !known {
				delete(two[id], field)
			}
		}
		if len(two[id]) > 0 && len(r) < 5 {
			s.Fatalf("the versions agree on few fields of %s: %v", id, r)
		}
	}
	if diff := cmp.Diff(one, two); diff != "" {
		s.Errorf("the %s (-) and the %s version (+) read differently:\n%s", a.name, b.name, diff)
	}
}

// wantStates checks the states of all tasks.
func (s *skewSite) wantStates(v *version, want map[string]int) {
	s.Helper()
	got := make(map[string]int)
	for _, r := range s.records(v) {
		got[fmt.Sprint(r["state"])]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("states as the %s version reads them (-want +got):\n%s", v.name, diff)
	}
}

// oneAfterTheOther has one version enqueue tasks of all kinds and the other do them.
func (s *skewSite) oneAfterTheOther(writer, reader *version) {
	want := s.lines(writer, "plain", 50)
	s.run(writer, "", "enqueue", "rich", `{"user":7,"text":"\u00e9 \u2028"}`, "--id", "rich", "--priority=-5", "--header", "trace=a=b",
		"--tag", "x", "--tag", "y", "--max-attempts", "3", "--timeout", "1m", "--expires-in", "1h", "--queue", "side")
	s.run(writer, "", "enqueue", "later", `"later"`, "--id", "later", "--in", "1h")
	s.run(writer, "", "enqueue", "later", `"held"`, "--id", "held", "--hold")
	s.run(writer, "", "enqueue", "later", `"first"`, "--id", "first", "--unique", "key")
	s.run(writer, "", "enqueue", "broken", `"broken"`, "--id", "broken")
	s.discard(writer, "broken")
	s.run(writer, "", "enqueue", "ended", `"ended"`, "--id", "ended")
	s.work(writer, "ended")
	s.run(writer, "", "queue", "pause", "side")
	s.wantSameRecords(writer, reader)

	if out := s.run(reader, "", "enqueue", "later", `"second"`, "--id", "second", "--unique", "key"); !strings.Contains(out, "first") {
		s.Errorf("the %s version let a second task in with the key, it printed %q", reader.name, out)
	}
	s.run(reader, "", "task", "run", "later", "held")
	s.run(reader, "", "task", "retry", "broken")
	s.run(reader, "", "queue", "resume", "side")
	for _, typ := range []string{"plain", "later", "broken"} {
		s.work(reader, typ)
	}
	s.run(reader, "", "work", "-q", "--until-empty", "--queue", "side", "--", "cat")
	s.wantRun("plain", want...)
	s.wantRun("later", "later", "held", "first")
	s.wantRun("broken", "broken")
	s.wantRun("ended", "ended")
	s.wantSameRecords(writer, reader)
	s.wantStates(writer, map[string]int{"completed": 56})
	if got := s.records(writer)["rich"]["result"]; !cmp.Equal(got, map[string]any{"user": 7.0, "text": "é \u2028"}) {
		s.Errorf("the %s version reads the result %v", writer.name, got)
	}
}

// atOnce has two versions enqueue and work at the same time.
func (s *skewSite) atOnce(a, b *version) {
	const each = 150
	var want []string
	for _, v := range []*version{a, b} {
		want = append(want, s.lines(v, "shared", each)...)
	}
	var crew sync.WaitGroup
	for _, v := range []*version{a, b} {
		crew.Go(func() { s.lines(v, "more", each) })
		crew.Go(func() { s.work(v, "shared") })
	}
	crew.Wait()
	for _, v := range []*version{a, b} {
		crew.Go(func() { s.work(v, "more") })
	}
	crew.Wait()
	s.wantRun("shared", want...)
	s.wantRun("more", want...)
	s.wantStates(a, map[string]int{"completed": 4 * each})
	s.wantSameRecords(a, b)
}

// takeOver has one version's worker killed in a handler, and the other version go on.
func (s *skewSite) takeOver(victim, heir *version) {
	ready, hold := s.pipe("ready"), s.pipe("hold")
	want := s.lines(heir, "stuck", 3)
	cmd := s.command(victim, "work", "-q", "--lease", "4s", "--type", "stuck", "--", "sh", "-c", `echo >"$0"; read -r line <"$1"`, ready.Name(), hold.Name())
	must(s, cmd.Start())
	begun := bufio.NewReader(ready)
	for range want {
		_, err := begun.ReadString('\n')
		must(s, err)
	}
	must(s, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	_, err := hold.WriteString("\n\n\n")
	must(s, err)
	s.work(heir, "stuck")
	s.wantRun("stuck", want...)
	s.wantSameRecords(victim, heir)
	for id, r := range s.records(heir) {
		if r["state"] != "completed" || r["crashes"] != 1.0 {
			s.Errorf("%s is %v after %v crashes, want completed after 1", id, r["state"], r["crashes"])
		}
	}
}

// pipe makes a named pipe that has a reader and a writer as long as the test goes on.
func (s *skewSite) pipe(name string) *os.File {
	s.Helper()
	path := filepath.Join(s.dir, name)
	must(s, syscall.Mkfifo(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(s, err)
	s.Cleanup(func() { _ = f.Close() })
	return f
}

// newerFormat has the newer version take over the older one's store, and checks that the older one refuses it from then
// on and changes nothing in it.
func newerFormat(t *testing.T, e engine, older, newer *version) {
	s := newSkewSite(t, e)
	before := s.lines(older, "before", 3)
	want := s.lines(newer, "plain", 3)
	for _, args := range [][]string{
		{"enqueue", "plain", `"refused"`}, {"task", "list"}, {"queue", "list", "-o", "json"}, {"task", "delete", "--all", "--yes"},
		{"work", "--until-empty", "--", "cat"},
	} {
		out, words, code := s.try(older, "", args...)
		if code != driver.ClassOf(driver.ErrUnsupported).Exit || out != "" || strings.Count(words, "\n") != 1 ||
			!strings.Contains(words, "format") || !strings.Contains(words, "update this program") && !strings.Contains(words, earlierWords) {
			t.Errorf("waggle %s on a newer store: exit code %d, it prints %q and says %q", strings.Join(args, " "), code, out, words)
		}
	}
	s.work(newer, "plain")
	s.work(newer, "before")
	s.wantRun("plain", want...)
	s.wantRun("before", before...)
	s.wantStates(newer, map[string]int{"completed": 6})
}

// earlierWords is how versions before this one told of a newer format on Redis.
const earlierWords = "use a matching version of Waggle"

// migratedUnder has the newer version migrate a store on which a worker of the older one runs. It ends by itself, with
// its tasks given back.
func migratedUnder(t *testing.T, e engine, older, newer *version) {
	s := newSkewSite(t, e)
	cmd := s.command(older, "work", "--lease", "1s", "--", "cat")
	stderr, err := cmd.StderrPipe()
	must(s, err)
	must(s, cmd.Start())
	words := bufio.NewReader(stderr)
	_, err = words.ReadString('\n') // it tells what it works on when the store is open
	must(s, err)
	s.run(newer, "", "enqueue", "plain", `"after"`)
	last, err := io.ReadAll(words)
	must(s, err)
	exit, ok := errors.AsType[*exec.ExitError](cmd.Wait())
	want := map[string]error{"redis": driver.ErrCorrupt, "sqlite": driver.ErrUnsupported}[e.name]
	if !ok || exit.ExitCode() != driver.ClassOf(want).Exit || !strings.Contains(string(last), "newer version of this program") {
		t.Errorf("a worker of the older version ended with %v, it said %s", exit, last)
	}
	s.work(newer, "plain")
	s.wantRun("plain", "after")
}

// formatOf finds the version of the stored format in the source of an engine.
var formatOf = map[string]struct{ file, expression string }{
	"redis": {"redisstore/open.go", `(?m)^((?:const )?\s*schema\s+= )(\d+)$`},
}

// storedFormat returns the version of an engine's stored format in a source tree.
func storedFormat(t *testing.T, source, engine string) int {
	t.Helper()
	if engine == "sqlite" {
		list, err := filepath.Glob(filepath.Join(source, "sqlitestore/sql/migrations/*.sql"))
		if err != nil || len(list) == 0 {
			t.Fatalf("%s has no migrations: %v", source, err)
		}
		return len(list)
	}
	in := formatOf[engine]
	text, err := os.ReadFile(filepath.Join(source, in.file))
	must(t, err)
	m := regexp.MustCompile(in.expression).FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s says no format in the form %s", in.file, in.expression)
	}
	n, err := strconv.Atoi(string(m[2]))
	must(t, err)
	return n
}

// nextFormat are the files of a version that has the next format on each engine.
func nextFormat(t *testing.T) map[string]string {
	t.Helper()
	in := formatOf["redis"]
	text, err := os.ReadFile(filepath.Join(moduleRoot, in.file))
	must(t, err)
	next := fmt.Sprintf("${1}%d", storedFormat(t, moduleRoot, "redis")+1)
	return map[string]string{
		in.file: regexp.MustCompile(in.expression).ReplaceAllString(string(text), next),
		fmt.Sprintf("sqlitestore/sql/migrations/%04d_next.sql", storedFormat(t, moduleRoot, "sqlite")+1): "ALTER TABLE store ADD COLUMN next INTEGER;\n",
	}
}
