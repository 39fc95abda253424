package plots

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"
)

// Band says what the area of a model in AccuracyVsM holds with a probability of 95 %. "" is no area.
type Band string

const (
	// Pointwise holds the true mean of each pair.
	Pointwise Band = "pointwise"
	// Simultaneous holds the true means of all pairs of a series at once.
	Simultaneous Band = "simultaneous"
)

func (b Band) validate() error {
	switch b {
	case "", Pointwise, Simultaneous:
		return nil
	}
	return fmt.Errorf("band %q is unknown: want one of %s, %s", b, Pointwise, Simultaneous)
}

// note says in a legend what the line and the area of the model are.
func (b Band) note() string {
	if b == Simultaneous {
		return "model: mean, 95 % band for all M"
	}
	return "model: mean, 95 % band"
}

// Expected is what a model expects of the true mean of a point, in percent: its mean, and the ends of the band.
type Expected struct{ Mean, Low, High float64 }

func (e Expected) validate() error {
	if err := checkValues([]float64{e.Mean, e.Low, e.High}, 0, 100); err != nil {
		return err
	}
	if e.Low > e.High {
		return fmt.Errorf("from %g to %g, want the low end first", e.Low, e.High)
	}
	return nil
}

// fields are the columns of a table.
func (e Expected) fields(b Band) []string {
	return []string{number(e.Mean), number(e.Low), number(e.High), string(b)}
}

var bandColumns = []string{"expected", "band_low", "band_high", "band"}

// expected are the best points of a series with what a model expects of them: the ends of the area, and the means.
func (s drawnSeries) expected() (area summaries, means plotter.XYs) {
	for _, same := range s.byM {
		p := best(same)
		area = append(area, summary{x: p.x, low: p.Expected.Low, high: p.Expected.High})
		means = append(means, plotter.XY{X: p.x, Y: p.Expected.Mean})
	}
	return area, means
}

// areas are the bands of all series, with the edges of all above them.
func areas(list []drawnSeries) (plotters []plot.Plotter) {
	var edges []plot.Plotter
	for _, s := range list {
		area, _ := s.expected()
		plotters = append(plotters, area.band(s.look))
		edges = append(edges, area.edges(s.look)...)
	}
	return append(plotters, edges...)
}

// bandEntry explains the line and the area of the model: in the look of the only series, else in grey.
func bandEntry(b Band, list []drawnSeries) entry {
	of := look{line: draw.LineStyle{Color: grey, Width: lineWidth}}
	if len(list) == 1 {
		of.line.Color = list[0].look.line.Color
	}
	return entry{b.note(), []plot.Thumbnailer{summaries{}.band(of), line(of.line, nil)}}
}
