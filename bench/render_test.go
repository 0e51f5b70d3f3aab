package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden page anew")

// someResults are made up, so that every kind of cell is on the page: several samples and one, no bulk call, no such
// concurrency, recoveries below and above the cap.
func someResults() *results {
	s := fullSettings()
	r := &results{
		Taken: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: "13m5s", Settings: s,
		Machine:  machine{CPU: "a CPU", Cores: 2, Memory: 7.8, System: "an OS", FsyncMS: 1.234},
		Versions: map[string]string{"Redis": "7.0.15", "asynq": "0.26.0"},
		Of:       map[string]*series{},
	}
	samples := func(xs ...float64) []sample {
		var list []sample
		for _, x := range xs {
			list = append(list, sample{Value: x, ClientCPU: 10, ServerCPU: 1e6 / x})
		}
		return list
	}
	r.Of["asynq"] = &series{
		Tasks: map[measure]int{workDefault: 10_000, work100: 20_000},
		Samples: map[measure][]sample{
			single: samples(40_000, 41_000, 39_000), workDefault: samples(6_000), work100: samples(6_500, 6_600),
			bytesPerTask: samples(625, 625, 625), pickup: {{PickupMS: []float64{900, 950}}, {PickupMS: []float64{1000}}},
		},
		Recovery: []recovered{{Seconds: 100}, {Seconds: 180, Capped: true}, {Seconds: 180, Capped: true}},
	}
	r.Of["bullmq"] = &series{
		Tasks: map[measure]int{work100: 20_000},
		Samples: map[measure][]sample{
			single: samples(11_000), bulk: samples(15_500, 15_000), work100: samples(12_000),
			bytesPerTask: samples(700), pickup: {{PickupMS: []float64{0.7, 0.8, 2.1}}},
		},
		Recovery: []recovered{{Seconds: 35}, {Seconds: 180, Capped: true}, {Seconds: 41}},
	}
	r.Of["redis-list"] = &series{
		Tasks:   map[measure]int{work100: 500_000},
		Samples: map[measure][]sample{single: samples(100_000), bulk: samples(800_000), work100: samples(1_000_000), bytesPerTask: samples(110)},
	}
	return r
}

func TestPage(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	p := &page{results: someResults(), images: imageDir}
	for _, s := range []*spec{asynqSpec(), bullmqSpec(), redisListSpec()} {
		s.defaultSlots = min(s.defaultSlots, 2) // asynq's depends on the machine
		p.specs = append(p.specs, s)
	}
	p.specs[1].ours = true // Waggle's part in the ratios
	p.write(&got)
	golden := filepath.Join("testdata", "page.md")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the page is not testdata/page.md (go test -update writes it):\n%s", diff)
	}
}

func TestRecoveryFigure(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in     []recovered
		median float64
		capped bool
	}{
		"all came":      {[]recovered{{Seconds: 3}, {Seconds: 1}, {Seconds: 2}}, 2, false},
		"a few did not": {[]recovered{{Seconds: 9, Capped: true}, {Seconds: 1}, {Seconds: 2}}, 2, false},
		"most did not":  {[]recovered{{Seconds: 9, Capped: true}, {Seconds: 1}, {Seconds: 9, Capped: true}}, 9, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, capped := recoveryFigure(c.in)
			if f.median != c.median || capped != c.capped {
				t.Errorf("got %v, capped %v; want %v, %v", f.median, capped, c.median, c.capped)
			}
		})
	}
}

// TestRenderFiles checks that every image of the page is there and is an SVG with a name for every contestant.
func TestRenderFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "benchmarks.md")
	if err := renderFiles(someResults(), path); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	images := regexp.MustCompile(`!\[.*?\]\((.*?)\)`).FindAllSubmatch(page, -1)
	if len(images) != len(plots(someResults())) {
		t.Errorf("the page shows %d plots", len(images))
	}
	for _, image := range images {
		svg, err := os.ReadFile(filepath.Join(filepath.Dir(path), string(image[1])))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, label := range []string{">asynq<", ">BullMQ<"} {
			if !bytes.Contains(svg, []byte(label)) {
				t.Errorf("%s does not show %s", image[1], label)
			}
		}
		if err := wellFormed(svg); err != nil {
			t.Errorf("%s: %v", image[1], err)
		}
	}
}

func wellFormed(svg []byte) error {
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		if _, err := d.Token(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func TestResultsSurviveTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "results.json")
	want := someResults()
	if err := want.write(path); err != nil {
		t.Fatal(err)
	}
	got, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-quick", "-rounds", "3", "-only", "asynq,river"})
	if err != nil {
		t.Fatal(err)
	}
	want := quickSettings()
	want.Rounds = 3
	if diff := cmp.Diff(want, o.settings); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"asynq", "river"}, o.only); diff != "" {
		t.Error(diff)
	}
	_, err = parseOptions([]string{"-rounds", "0", "-cap", "-1"})
	if err == nil || !strings.Contains(err.Error(), "-rounds") || !strings.Contains(err.Error(), "-cap") {
		t.Errorf("bad options: %v; want both named", err)
	}
}

func TestContestantsHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range contestants() {
		if s.name == "" || s.label == "" || s.settings == "" || seen[s.name] {
			t.Errorf("%+v: a name or text is missing or not its own", s)
		}
		seen[s.name] = true
		if !s.limit && (s.recovery == "" || s.defaultSlots < 1) {
			t.Errorf("%s: what a queue has to say is missing", s.name)
		}
	}
	if _, err := find([]string{"asynq", "no-such"}); err == nil || !strings.Contains(err.Error(), "no-such") {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestEventsAreToldFromOtherOutput(t *testing.T) {
	t.Parallel()
	events := make(chan event, 3)
	var other []string
	readEvents(strings.NewReader(`a library says hello
{"event":"ready"}
{"level":"WARN"}
{"event":"done","count":3,"samples_ms":[1.5]}
`), events, func(line string) { other = append(other, line) })
	close(events)
	var got []event
	for e := range events {
		got = append(got, e)
	}
	if diff := cmp.Diff([]event{{Event: evReady}, {Event: evDone, Count: 3, SamplesMS: []float64{1.5}}}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a library says hello", `{"level":"WARN"}`}, other); diff != "" {
		t.Error(diff)
	}
}
