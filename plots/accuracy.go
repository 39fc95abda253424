package plots

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Point is what was measured at one pair (L, M).
type Point struct {
	// L and M are the partition numbers, at least 1.
	L, M int
	// Accuracies in percent, one for each seed. A point without any is left out.
	Accuracies []float64
	// Expected is drawn if AccuracyVsM has a Band; then every point with an accuracy has one.
	Expected *Expected
}

// Series are the points of one study.
type Series struct {
	// Name stands in the legend; it may be empty if there is one series.
	Name   string
	Points []Point // in any order, each pair once
}

// AccuracyVsM is the figure of accuracy against the number of secondary partitions M, on an axis to base 2 with
// ticks at the M that ran. The accuracies of the seeds are drawn as their mean with a capped bar; a single seed
// has no bar.
//
// Under each M stand its L. Series in which some M has different L get a row of L each, headed by their markers.
// Where one series has several L for an M, each is a point, the row shows the range, and the line runs through
// the best of them. Points that share an M stand a little beside one another.
type AccuracyVsM struct {
	Series []Series
	// Bar says what the error bars are; "" is Std.
	Bar Bar
	// Seeds adds a dot for each seed, right of the bar.
	Seeds bool
	// Band adds what a model expects of the true means: the band as an area, and its mean as the line of the series,
	// which then does not run through the means of the seeds.
	Band Band
	// WidthCurve adds the width G = L·M, dashed, with its own axis on the right.
	WidthCurve bool
}

func (f AccuracyVsM) validate() error {
	if err := f.Band.validate(); err != nil {
		return err
	}
	var names []string
	drawn := 0
	for _, s := range f.Series {
		names = append(names, s.Name)
		pairs := map[[2]int]bool{}
		for _, p := range s.Points {
			where := fmt.Sprintf("series %q, L = %d, M = %d", s.Name, p.L, p.M)
			if p.L < 1 || p.M < 1 {
				return fmt.Errorf("%s: want both at least 1", where)
			}
			if pairs[[2]int{p.L, p.M}] {
				return fmt.Errorf("%s: given twice, want each pair once", where)
			}
			pairs[[2]int{p.L, p.M}] = true
			if err := checkValues(p.Accuracies, 0, 100); err != nil {
				return fmt.Errorf("%s: accuracy %w", where, err)
			}
			if f.Band != "" && len(p.Accuracies) > 0 {
				if p.Expected == nil {
					return fmt.Errorf("%s: nothing is expected of it, want a band", where)
				}
				if err := p.Expected.validate(); err != nil {
					return fmt.Errorf("%s: band %w", where, err)
				}
			}
			drawn += len(p.Accuracies)
		}
	}
	if drawn == 0 {
		return errors.New("nothing to draw: no point has an accuracy yet")
	}
	return cmp.Or(f.Bar.validate(), checkNames("series", names))
}

// table has a row for each point in the order series, M, L; accuracies has the seeds, separated by spaces. The columns of
// the band are there only if it is drawn.
func (f AccuracyVsM) table() [][]string {
	rows := [][]string{{"series", "L", "M", "width", "n", "mean", "low", "high", "bar", "accuracies"}}
	if f.Band != "" {
		rows[0] = append(rows[0], bandColumns...)
	}
	for _, s := range f.drawn() {
		for _, p := range slices.Concat(s.byM...) {
			var seeds []string
			for _, a := range p.Accuracies {
				seeds = append(seeds, number(a))
			}
			row := slices.Concat([]string{s.name}, integers(p.L, p.M, p.L*p.M, p.n), p.fields(f.Bar))
			if row = append(row, strings.Join(seeds, " ")); f.Band != "" {
				row = append(row, p.Expected.fields(f.Band)...)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func (f AccuracyVsM) size() (width, height float64) { return columnWidth, 2.2 }

// drawnPoint is a point with its summary, which stands at log2 M.
type drawnPoint struct {
	Point
	summary
}

// drawnSeries is a series with at least one point.
type drawnSeries struct {
	name string
	look look
	byM  [][]drawnPoint // by rising M, those of each by rising L
}

// drawn returns the series that have a point to draw.
func (f AccuracyVsM) drawn() (list []drawnSeries) {
	for i, s := range f.Series {
		var points []drawnPoint
		for _, p := range s.Points {
			if len(p.Accuracies) > 0 {
				points = append(points, drawnPoint{p, summarize(log2(p.M), p.Accuracies, f.Bar, 100)})
			}
		}
		slices.SortFunc(points, func(a, b drawnPoint) int {
			return cmp.Or(cmp.Compare(a.M, b.M), cmp.Compare(a.L, b.L))
		})
		d := drawnSeries{name: s.Name, look: lookOf(i)}
		for k, p := range points {
			if k == 0 || p.M != points[k-1].M {
				d.byM = append(d.byM, nil)
			}
			last := len(d.byM) - 1
			d.byM[last] = append(d.byM[last], p)
		}
		if len(points) > 0 {
			list = append(list, d)
		}
	}
	return list
}

func log2(m int) float64 { return math.Log2(float64(m)) }

// best returns the point with the highest mean.
func best(same []drawnPoint) drawnPoint {
	return slices.MaxFunc(same, func(a, b drawnPoint) int { return cmp.Compare(a.mean, b.mean) })
}

// ls is the text under M: the L of its points.
func ls(same []drawnPoint) string {
	first, last := same[0].L, same[len(same)-1].L
	if first == last {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d–%d", first, last)
}

// labelsOf returns the labels under the axis. Series share a row of L if they have the same L for each common M.
func labelsOf(list []drawnSeries) *partitionLabels {
	var labels partitionLabels
next:
	for _, s := range list {
		own := map[int]string{}
		for _, same := range s.byM {
			own[same[0].M] = ls(same)
			labels.ms = append(labels.ms, same[0].M)
		}
	search:
		for i, r := range labels.rows {
			for m, text := range own {
				if l, ok := r.labels[m]; ok && l != text {
					continue search
				}
			}
			maps.Copy(r.labels, own)
			labels.rows[i].series = append(r.series, s)
			continue next
		}
		labels.rows = append(labels.rows, partitionRow{[]drawnSeries{s}, own})
	}
	slices.Sort(labels.ms)
	labels.ms = slices.Compact(labels.ms)
	return &labels
}

func (f AccuracyVsM) layout(size vg.Point, o Options) layout {
	list := f.drawn()
	labels := labelsOf(list)
	labels.face = o.typeface()
	var all summaries
	var values, widths, logs []float64
	for _, s := range list {
		for _, p := range slices.Concat(s.byM...) {
			all = append(all, p.summary)
			values = append(values, p.low, p.high)
			if f.Seeds {
				values = append(values, p.Accuracies...)
			}
			if f.Band != "" {
				values = append(values, p.Expected.Low, p.Expected.High)
			}
			logs, widths = append(logs, p.x), append(widths, float64(p.L*p.M))
		}
	}
	p := newPanel(o.typeface(), "secondary partitions M, primary partitions L", accuracyLabel(o))
	p.toX = math.Log2
	x, y := o.X.of(spanOf(logs, 0.04), p.toX), o.Y.of(spanOf(values, 0.06), nil)
	labels.within(x)
	p.Y.Tick.Marker = heightTicks(size.Y)
	p.X.Tick.Marker = labels
	p.X.Tick.Length *= 2                          // a tick without a label is drawn half as long
	unit := (x.high - x.low) / float64(size.X-80) // 80 pt is about what the vertical axes take
	dodge(list, labels.ms, unit)
	if f.Band != "" {
		p.Add(areas(list)...)
		name := f.Band.note()
		for _, s := range list {
			area, _ := s.expected()
			p.add(series{name: name, look: s.look, band: area})
			name = "" // one legend for all bands
		}
	}
	if f.WidthCurve {
		scale := span{0, 1.08 * slices.Max(widths)}
		ticks := heightTicks(size.Y).Ticks(scale.low, scale.high)
		p.right = &rightAxis{face: p.face, scale: scale, ticks: ticks, label: "width G = L·M", color: grey}
		p.Add(p.right)
		p.Add(widthCurves(labels.rows, func(w float64) float64 { return y.at(scale.part(w)) })...)
	}
	p.Add(labels)
	f.addSeries(p, list, min(3*unit, narrowest(labels.ms)/2))
	p.setRanges(x, y)
	p.breakLabels(size)
	labels.reserve(p.DataCanvas(blank(size)), p.Plot)
	p.X.Label.Padding = labels.height()
	return one(f.legend(list, all.note(f.Bar)), p)
}

func (f AccuracyVsM) legend(list []drawnSeries, note string) legend {
	l := legend{note: note}
	for _, s := range list {
		sample := s.look.sample()
		if f.Band != "" && len(list) == 1 {
			sample = sample[1:] // the line is that of the model, which has an entry of its own
		}
		l.entries = append(l.entries, entry{s.name, sample})
	}
	l.foldNote()
	if f.Band != "" {
		l.entries = append(l.entries, bandEntry(f.Band, list))
	}
	if f.WidthCurve {
		l.entries = append(l.entries, entry{"width", []plot.Thumbnailer{line(widthStyle(blend(grey, 0.7)), nil)}})
	}
	return l
}

// addSeries adds the lines, which run through the best point of each M or the means of the model, and over them the
// points. The dots of
// seeds stand beside their points.
func (f AccuracyVsM) addSeries(p *panel, list []drawnSeries, beside float64) {
	var all layers
	for _, s := range list {
		var way, points summaries
		for _, same := range s.byM {
			way = append(way, best(same).summary)
			for _, point := range same {
				points = append(points, point.summary)
				if f.Seeds {
					all.addSeeds(s.look, point.x+beside, point.Accuracies)
				}
			}
		}
		through := way.means()
		if f.Band != "" {
			_, through = s.expected()
		}
		all.add(p, s.name, s.look, through, points)
	}
	all.addTo(p)
}

// widthCurves are lines through the widest pair of each M, one for each row of L. They are grey, or where rows
// have different L, in a light shade of the row's first series.
func widthCurves(rows []partitionRow, height func(float64) float64) (lines []plot.Plotter) {
	for _, r := range rows {
		widest := map[int]int{}
		for _, s := range r.series {
			for _, p := range slices.Concat(s.byM...) {
				widest[p.M] = max(widest[p.M], p.L*p.M)
			}
		}
		var xys plotter.XYs
		for _, m := range slices.Sorted(maps.Keys(widest)) {
			xys = append(xys, plotter.XY{X: log2(m), Y: height(float64(widest[m]))})
		}
		clr := blend(grey, 0.7)
		if len(rows) > 1 {
			clr = blend(r.series[0].look.line.Color, 0.45)
		}
		lines = append(lines, line(widthStyle(clr), xys))
	}
	return lines
}

func widthStyle(clr color.Color) draw.LineStyle {
	return draw.LineStyle{Color: clr, Width: 0.65, Dashes: []vg.Length{2, 1.5}}
}

// dodge moves points that share an M apart: by 2.5 pt, or where the next M is near, by so much less that the
// points of one M stay nearer to one another. unit is a point (pt) in units of the axis.
func dodge(list []drawnSeries, ms []int, unit float64) {
	count, repeats := map[int]int{}, 1
	for _, s := range list {
		for _, same := range s.byM {
			count[same[0].M] += len(same)
			repeats = max(repeats, len(same)) // of an M in one series
		}
	}
	for i, s := range list {
		for _, same := range s.byM {
			m := same[0].M
			if count[m] == 1 {
				continue
			}
			k := slices.Index(ms, m)
			near := narrowest(ms[max(0, k-1):min(len(ms), k+2)])
			step := min(2.5*unit, 0.6*near/float64(len(list)*repeats))
			for j := range same {
				slot := float64(j) - float64(len(same)-1)/2
				same[j].x += step * (float64(repeats)*(float64(i)-float64(len(list)-1)/2) + slot)
			}
		}
	}
}

// narrowest is the smallest distance between neighbouring M, in units of the axis; infinite for one M.
func narrowest(ms []int) float64 {
	least := math.Inf(1)
	for i := 1; i < len(ms); i++ {
		least = min(least, log2(ms[i])-log2(ms[i-1]))
	}
	return least
}
