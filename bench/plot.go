package main

import (
	"bytes"
	"image/color"
	"math"
	"os"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture is a plot: a row for each contestant, on a logarithmic axis, in each row a mark with its spread for each
// group.
type picture struct {
	file, title, axis string
	rows              []string // from the top
	groups            []group
}

// group is one kind of mark; figures is parallel to the picture's rows.
type group struct {
	name    string
	figures []figure
}

// plots returns all pictures of the page.
func plots(r *results) []picture {
	p := &page{results: r, specs: measured(r)}
	queues := slices.DeleteFunc(slices.Clone(p.specs), func(s *spec) bool { return s.limit })
	rate := func(m measure) func(*spec) figure {
		return func(s *spec) figure { return summarize(p.throughputOf(s, m)) }
	}
	p50 := func(s *spec) figure { f, _ := pickupFigures(r.Of[s.name]); return f }
	p99 := func(s *spec) figure {
		_, x := pickupFigures(r.Of[s.name])
		return figure{median: x, low: x, high: x, samples: 1}
	}
	recover := func(s *spec) figure { f, _ := recoveryFigure(r.Of[s.name].Recovery); return f }
	return []picture{
		newPicture("benchmarks-enqueue.svg", "Enqueue", "tasks a second (more is better)", p.specs,
			groupOf("50 callers", rate(single)), groupOf("batches of 500", rate(bulk))),
		newPicture("benchmarks-process.svg", "Process, one worker", "tasks a second (more is better)", p.specs,
			groupOf("default concurrency", rate(workDefault)), groupOf("100 at once", rate(work100))),
		newPicture("benchmarks-pickup.svg", "Idle pick-up", "milliseconds (less is better)", queues,
			groupOf("p50", p50), groupOf("p99", p99)),
		newPicture("benchmarks-recovery.svg", "Recovery after SIGKILL of a worker", "seconds (less is better; the cap if not recovered by then)", queues,
			groupOf("median and range", recover)),
		newPicture("benchmarks-bytes.svg", "A queued task of 100 bytes", "bytes (less is better)", p.specs,
			groupOf("median and range", rate(bytesPerTask))),
	}
}

// source is a group that is still to be filled in.
type source struct {
	name string
	of   func(*spec) figure
}

func groupOf(name string, of func(*spec) figure) source { return source{name, of} }

func newPicture(file, title, axis string, specs []*spec, sources ...source) picture {
	p := picture{file: file, title: title, axis: axis}
	for _, s := range specs {
		p.rows = append(p.rows, s.label)
	}
	for _, src := range sources {
		g := group{name: src.name}
		for _, s := range specs {
			g.figures = append(g.figures, src.of(s))
		}
		p.groups = append(p.groups, g)
	}
	return p
}

// The colours of the groups can be told apart by the colour-blind too.
var (
	groupColors = []color.Color{color.RGBA{0x00, 0x72, 0xb2, 0xff}, color.RGBA{0xd5, 0x5e, 0x00, 0xff}}
	groupGlyphs = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}}
	gridColor   = color.Gray{0xdd}
)

const (
	plotWidth = 18 * vg.Centimeter
	rowHeight = 0.85 * vg.Centimeter
	plotFrame = 3.2 * vg.Centimeter // title, axis and legend

	plotMargin = 0.2 * vg.Centimeter
)

// save draws the picture into an SVG file.
func (p picture) save(path string) error {
	drawn, err := p.draw()
	if err != nil {
		return err
	}
	canvas := vgsvg.New(plotWidth, rowHeight*vg.Length(len(p.rows))+plotFrame)
	drawn.Draw(draw.Crop(draw.New(canvas), plotMargin, -plotMargin, plotMargin, -plotMargin))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	// The plot is set in Liberation Sans, which has Arial's widths; not every reader has it.
	svg := bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return os.WriteFile(path, svg, 0o644)
}

func (p picture) draw() (*plot.Plot, error) {
	plt := plot.New()
	sans(&plt.Title.TextStyle, &plt.X.Label.TextStyle, &plt.X.Tick.Label, &plt.Y.Tick.Label, &plt.Legend.TextStyle)
	plt.Title.Text, plt.X.Label.Text = p.title, p.axis
	plt.Title.TextStyle.Font.Size = vg.Points(13)
	plt.Title.Padding = vg.Points(6)
	plt.Legend.Top, plt.Legend.YOffs = true, vg.Points(20)
	plt.X.Scale, plt.X.Tick.Marker = plot.LogScale{}, decades{}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = gridColor, gridColor
	plt.Add(grid)
	for i, g := range p.groups {
		if err := p.addGroup(plt, i, g); err != nil {
			return nil, err
		}
	}
	names := slices.Clone(p.rows)
	slices.Reverse(names) // the axis counts from below
	plt.NominalY(names...)
	plt.Y.Min, plt.Y.Max = -0.5, float64(len(p.rows))-0.5
	plt.X.Min, plt.X.Max = p.limits()
	return plt, nil
}

// sans sets styles in a face without serifs.
func sans(styles ...*text.Style) {
	for _, s := range styles {
		s.Font.Typeface, s.Font.Variant = "Liberation", "Sans"
		s.Font.Size = max(vg.Points(10), min(s.Font.Size, vg.Points(11)))
		s.Font.Weight = font.Font{}.Weight
	}
}

// addGroup draws the marks of the i-th group.
func (p picture) addGroup(plt *plot.Plot, i int, g group) error {
	const apart = 0.24 // of a row, between the groups
	var marks spreads
	for row, f := range g.figures {
		if f.samples == 0 || f.low <= 0 {
			continue
		}
		y := float64(len(p.rows)-1-row) + apart*(float64(len(p.groups)-1)/2-float64(i))
		marks.XYs = append(marks.XYs, plotter.XY{X: f.median, Y: y})
		marks.XErrors = append(marks.XErrors, struct{ Low, High float64 }{f.median - f.low, f.high - f.median})
	}
	if len(marks.XYs) == 0 {
		return nil
	}
	scatter, err := plotter.NewScatter(marks.XYs)
	if err != nil {
		return err
	}
	scatter.GlyphStyle = draw.GlyphStyle{Color: groupColors[i], Radius: vg.Points(3.5), Shape: groupGlyphs[i]}
	bars, err := plotter.NewXErrorBars(marks)
	if err != nil {
		return err
	}
	bars.LineStyle.Color, bars.LineStyle.Width = groupColors[i], vg.Points(1.2)
	plt.Add(bars, scatter)
	if len(p.groups) > 1 {
		plt.Legend.Add(g.name, scatter)
	}
	return nil
}

// spreads are points with horizontal error bars.
type spreads struct {
	plotter.XYs
	plotter.XErrors
}

// limits returns the whole decades that hold all figures.
func (p picture) limits() (low, high float64) {
	low, high = math.Inf(1), 0
	for _, g := range p.groups {
		for _, f := range g.figures {
			if f.samples > 0 && f.low > 0 {
				low, high = min(low, f.low), max(high, f.high)
			}
		}
	}
	if high == 0 {
		return 1, 10
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	return low, max(high, 10*low)
}

// decade writes a power of ten: 0.1, 1, 1 000.
func decade(d float64) string {
	if d < 1 {
		return strconv.FormatFloat(d, 'g', 3, 64)
	}
	return grouped(int64(math.Round(d)))
}

// decades are ticks at the powers of ten, with small ones at 2 and 5 times them.
type decades struct{}

// Ticks implements plot.Ticker.
func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for d := math.Pow(10, math.Floor(math.Log10(low))); d <= high*1.001; d *= 10 {
		ticks = append(ticks, plot.Tick{Value: d, Label: decade(d)})
		for _, step := range []float64{2, 5} {
			if v := d * step; v <= high*1.001 {
				ticks = append(ticks, plot.Tick{Value: v})
			}
		}
	}
	return ticks
}
