package strategy_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/cmpimg"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

var update = flag.Bool("update", false, "rewrite testdata/calibration.json from a long simulation, and docs/calibration.png")

// calibrationFile holds the calibration of the strategy "peak" as the simulation has measured it.
const calibrationFile = "testdata/calibration.json"

// calibration compares probabilities with how often they were true. Its keys are the kinds of
// truths. Rounds counts the beliefs after every round, and Ends those after the last one.
type calibration struct{ Rounds, Ends map[string][]bin }

// edges are the ends of the bins of a probability.
var edges = []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1}

// bin counts the beliefs with a probability between two edges. The beliefs of one study depend on
// each other, so the squares are of the sums over a study.
type bin struct {
	N, Sum, True      float64 // the beliefs, the sum of their probabilities, how many are true
	NN, NTrue, TrueSq float64 // over the studies: the sums of n², n·true, true²
}

// share returns the mean of the probabilities, and the share that is true with its standard error.
func (b bin) share() (expected, share, se float64) {
	p := b.True / b.N
	return b.Sum / b.N, p, math.Sqrt(max(0, b.TrueSq-2*p*b.NTrue+p*p*b.NN)) / b.N
}

func newCalibration() calibration {
	return calibration{Rounds: map[string][]bin{}, Ends: map[string][]bin{}}
}

// add counts the beliefs of one study of a kind of truth.
func (c calibration) add(kind string, rounds []judged) {
	if len(rounds) > 0 {
		count(c.Rounds, kind, rounds)
		count(c.Ends, kind, rounds[len(rounds)-1:])
	}
}

func count(to map[string][]bin, kind string, list []judged) {
	if to[kind] == nil {
		to[kind] = make([]bin, len(edges)-1)
	}
	study := make([]bin, len(edges)-1)
	for _, j := range list {
		at := 0
		for at < len(study)-1 && j.within >= edges[at+1]-1e-9 {
			at++
		}
		study[at].N++
		study[at].Sum += j.within
		if j.true {
			study[at].True++
		}
	}
	for i, s := range study {
		b := &to[kind][i]
		b.N, b.Sum, b.True = b.N+s.N, b.Sum+s.Sum, b.True+s.True
		b.NN, b.NTrue, b.TrueSq = b.NN+s.N*s.N, b.NTrue+s.N*s.True, b.TrueSq+s.True*s.True
	}
}

// table returns the rows of a table, a bin in each.
func (c calibration) table() (rows []string) {
	for i := range len(edges) - 1 {
		text := fmt.Sprintf("| %g to %g |", edges[i], edges[i+1])
		for _, of := range []map[string][]bin{c.Rounds, c.Ends} {
			for _, kind := range []string{concave, broken, worst} {
				if of[kind] == nil || of[kind][i].N == 0 {
					text += " – |"
					continue
				}
				expected, share, se := of[kind][i].share()
				text += fmt.Sprintf(" %.1f: %.1f ± %.1f, n %.0f |", 100*expected, 100*share, 100*se, of[kind][i].N)
			}
		}
		rows = append(rows, text)
	}
	return rows
}

// readCalibrations returns the content of the file, by the number of seeds.
func readCalibrations(t *testing.T) map[int]calibration {
	t.Helper()
	text, err := os.ReadFile(calibrationFile)
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]calibration{}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// save puts the calibration of studies of a number of seeds into the file.
func (c calibration) save(t *testing.T, seeds int) {
	t.Helper()
	all := map[int]calibration{}
	if _, err := os.Stat(calibrationFile); err == nil {
		all = readCalibrations(t)
	}
	all[seeds] = c
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(calibrationFile, append(text, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestCalibrationFigure draws docs/calibration.png from the file: the beliefs of studies of ten seeds
// after every round.
func TestCalibrationFigure(t *testing.T) {
	c := readCalibrations(t)[mostSeeds]
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = "probability under the model", "share of the leaders that are within the margin"
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 1, 0, 1
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Millimeter
	for _, style := range []*text.Style{&p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label,
		&p.Legend.TextStyle} {
		style.Font.Size = 10
	}
	diagonal, err := plotter.NewLine(plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 1}})
	if err != nil {
		t.Fatal(err)
	}
	diagonal.Color, diagonal.Dashes = color.Gray{140}, []vg.Length{3, 2}
	p.Add(diagonal)
	for _, k := range []struct {
		kind, label string
		color       color.Color
		shape       draw.GlyphDrawer
	}{
		{concave, "concave curves", color.RGBA{0, 114, 178, 255}, draw.CircleGlyph{}},
		{broken, "an assumption is broken", color.RGBA{213, 94, 0, 255}, draw.BoxGlyph{}},
		{worst, "made to be the worst", color.RGBA{0, 158, 115, 255}, draw.PyramidGlyph{}},
	} {
		var points errorPoints
		for _, b := range c.Rounds[k.kind] {
			if b.N < 100 {
				continue // its share is hardly known
			}
			expected, share, se := b.share()
			points.XYs = append(points.XYs, plotter.XY{X: expected, Y: share})
			points.YErrors = append(points.YErrors, struct{ Low, High float64 }{2 * se, 2 * se})
		}
		line, marks, err := plotter.NewLinePoints(points.XYs)
		if err != nil {
			t.Fatal(err)
		}
		bars, err := plotter.NewYErrorBars(points)
		if err != nil {
			t.Fatal(err)
		}
		line.Color, bars.Color, marks.GlyphStyle = k.color, k.color, draw.GlyphStyle{Color: k.color, Radius: 2.5, Shape: k.shape}
		p.Add(line, bars, marks)
		p.Legend.Add(k.label, line, marks)
	}
	canvas := vgimg.NewWith(vgimg.UseWH(11*vg.Centimeter, 9*vg.Centimeter), vgimg.UseDPI(120))
	p.Draw(draw.Crop(draw.New(canvas), vg.Millimeter, -3*vg.Millimeter, vg.Millimeter, -2*vg.Millimeter))
	var got bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: canvas}).WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("..", "..", "docs", "calibration.png")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	// Other processors may round the shade of an edge otherwise.
	if same, err := cmpimg.EqualApprox("png", got.Bytes(), want, 0.1); err != nil || !same {
		t.Errorf("differs from %s (%v): run with -update if it is right", golden, err)
	}
}

// errorPoints are points with their errors, for plotter.NewYErrorBars.
type errorPoints struct {
	plotter.XYs
	plotter.YErrors
}
