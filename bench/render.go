package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// imageDir is where the plots are, seen from the page.
const imageDir = "img"

// renderFiles writes the page to path and its plots beside it.
func renderFiles(r *results, path string) error {
	dir := filepath.Join(filepath.Dir(path), imageDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range plots(r) {
		if err := p.save(filepath.Join(dir, p.file)); err != nil {
			return fmt.Errorf("%s: %w", p.file, err)
		}
	}
	var page bytes.Buffer
	if err := writePage(&page, r, imageDir); err != nil {
		return err
	}
	return os.WriteFile(path, page.Bytes(), 0o644)
}

// measured returns the specs that the results have figures of, in the order of the page.
func measured(r *results) []*spec {
	return slices.DeleteFunc(contestants(), func(s *spec) bool { return r.Of[s.name] == nil })
}

// writePage renders the results as Markdown.
func writePage(w io.Writer, r *results, images string) error {
	p := &page{results: r, specs: measured(r), images: images}
	if len(p.specs) == 0 {
		return errors.New("the results hold no contestant that this program knows")
	}
	return p.write(w)
}

func (p *page) write(w io.Writer) error {
	p.intro()
	p.throughput()
	p.rest()
	p.ratios()
	p.pictures()
	p.method()
	p.settingsTable()
	p.machine()
	p.repeat()
	_, err := w.Write(p.out.Bytes())
	return err
}

// page is a page under way.
type page struct {
	*results
	specs  []*spec
	images string
	out    bytes.Buffer
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

// table writes a table. Numbers are aligned right if numeric is set.
func (p *page) table(numeric bool, head []string, rows [][]string) {
	align := "---"
	if numeric {
		align = "---:"
	}
	p.line("| %s |", strings.Join(head, " | "))
	p.line("|---|%s", strings.Repeat(align+"|", len(head)-1))
	for _, row := range rows {
		p.line("| %s |", strings.Join(row, " | "))
	}
	p.line("")
}

func (p *page) intro() {
	p.line("# Waggle beside other queues")
	p.line("")
	p.line("<!-- Written by `make compare`; do not edit. -->")
	p.line("")
	p.line("Measured %s in one run on one machine, each store on the same machine as its workers, with every tool's own", p.Taken.Format("on 2 January 2006"))
	p.line("defaults, payloads of %d bytes and handlers that do nothing. Figures are medians of %d rounds, in brackets the least", payloadBytes, p.Settings.Rounds)
	p.line("and the greatest. Ratios carry over to other machines; absolute figures don't.")
	p.line("")
}

func (p *page) throughput() {
	p.line("## Tasks a second")
	p.line("")
	var rows [][]string
	for _, s := range p.specs {
		row := []string{s.label}
		for _, m := range []measure{single, bulk, workDefault, work100} {
			row = append(row, p.rate(s, m))
		}
		rows = append(rows, row)
	}
	p.table(true, []string{"", fmt.Sprintf("enqueue, %d callers", p.Settings.Callers), fmt.Sprintf("enqueue, batches of %d", p.Settings.BulkBatch),
		"process, default concurrency", fmt.Sprintf("process, %d at once", manySlots)}, rows)
}

// rate is the cell of a figure of throughput.
func (p *page) rate(s *spec, m measure) string {
	if m == bulk && s.noBulk {
		return "none"
	}
	return summarize(p.throughputOf(s, m)).cell()
}

// throughputOf returns the samples of m; for a queue whose default concurrency is the common one, both are one figure.
func (p *page) throughputOf(s *spec, m measure) []float64 {
	if m == workDefault && s.defaultSlots == manySlots {
		m = work100
	}
	return p.Of[s.name].values(m)
}

func (p *page) rest() {
	p.line("## Latency, space, recovery, CPU")
	p.line("")
	var rows [][]string
	for _, s := range p.specs {
		of := p.Of[s.name]
		p50, p99 := pickupFigures(of)
		rows = append(rows, []string{
			s.label, p50.cell(), short(p99), summarize(of.values(bytesPerTask)).cell(), recoveryCell(of.Recovery),
			summarize(of.cpu(single)).cell(), summarize(of.cpu(work100)).cell(),
		})
	}
	p.table(true, []string{"", "idle pick-up p50, ms", "p99, ms", "bytes a queued task", "recovery after SIGKILL, s",
		"CPU to enqueue one, µs", "CPU to process one, µs"}, rows)
}

// pickupFigures returns the median pick-up with the spread of the rounds' medians, and the 99th percentile of all
// samples.
func pickupFigures(of *series) (p50 figure, p99 float64) {
	var medians []float64
	for _, x := range of.Samples[pickup] {
		medians = append(medians, percentile(x.PickupMS, 50))
	}
	all := of.pickups()
	p50 = summarize(medians)
	p50.median = percentile(all, 50)
	return p50, percentile(all, 99)
}

// recoveryFigure returns the seconds of recovery. A sample that reached the cap counts as that, and capped tells that
// the median is such a one.
func recoveryFigure(rs []recovered) (f figure, capped bool) {
	var seconds []float64
	limit := 0.0
	for _, r := range rs {
		seconds = append(seconds, r.Seconds)
		if r.Capped {
			limit = r.Seconds
		}
	}
	f = summarize(seconds)
	return f, limit > 0 && f.median >= limit
}

func recoveryCell(rs []recovered) string {
	f, capped := recoveryFigure(rs)
	if capped {
		return "**> " + short(f.median) + "**"
	}
	return f.cell()
}

// comparison is one column of the table of ratios.
type comparison struct {
	label string
	// of returns the figure, or NaN; less tells that less is better.
	of   func(p *page, s *spec) float64
	less bool
}

func comparisons() []comparison {
	rate := func(m measure) func(*page, *spec) float64 {
		return func(p *page, s *spec) float64 { return median(p.throughputOf(s, m)) }
	}
	return []comparison{
		{"enqueue, callers", rate(single), false},
		{"enqueue, batches", rate(bulk), false},
		{"process, default", rate(workDefault), false},
		{fmt.Sprintf("process, %d", manySlots), rate(work100), false},
		{"pick-up p50", func(p *page, s *spec) float64 { f, _ := pickupFigures(p.Of[s.name]); return f.median }, true},
		{"pick-up p99", func(p *page, s *spec) float64 { _, p99 := pickupFigures(p.Of[s.name]); return p99 }, true},
		{"bytes", rate(bytesPerTask), true},
		{"recovery", func(p *page, s *spec) float64 { f, _ := recoveryFigure(p.Of[s.name].Recovery); return f.median }, true},
		{"CPU, process", func(p *page, s *spec) float64 { return median(p.Of[s.name].cpu(work100)) }, true},
	}
}

func (p *page) ratios() {
	columns := comparisons()
	head := []string{""}
	for _, c := range columns {
		head = append(head, c.label)
	}
	var rows [][]string
	for _, us := range p.specs {
		for _, other := range p.specs {
			// The bare Redis loops are a limit for what runs on Redis.
			if !us.ours || other.ours || other.limit && us.store != other.store {
				continue
			}
			row := []string{us.label + " : " + other.label}
			for _, c := range columns {
				row = append(row, c.ratio(p, us, other))
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return
	}
	p.line("## How many times better")
	p.line("")
	p.line("Ratios of the medians, turned so that more than 1 is in favor of Waggle: twice as many tasks a second and half as")
	p.line("many bytes are both 2 ×. Where the other one's recovery reached the cap, the ratio is a lower bound.")
	p.line("")
	p.table(true, head, rows)
}

func (c comparison) ratio(p *page, us, other *spec) string {
	a, b := c.of(p, us), c.of(p, other)
	if c.less {
		a, b = b, a
	}
	text := times(a / b)
	if _, capped := recoveryFigure(p.Of[other.name].Recovery); c.label == "recovery" && capped {
		text = "> " + text
	}
	return text
}

func (p *page) pictures() {
	p.line("## Plots")
	p.line("")
	for _, plot := range plots(p.results) {
		p.line("![%s](%s/%s)", plot.title, p.images, plot.file)
		p.line("")
	}
}
