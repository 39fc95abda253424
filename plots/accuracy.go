package plots

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"image/color"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Point is what was measured at one pair (L, M).
type Point struct {
	// L and M are the partition numbers, at least 1.
	L, M int
	// Accuracies in percent, one for each seed. A point without any is left
	// out.
	Accuracies []float64
}

// Series is one curve: the points of one study.
type Series struct {
	// Name stands in the legend; it may be empty if there is one series.
	Name   string
	Points []Point // in any order, each pair once
}

// AccuracyVsM is the figure of accuracy against the number of secondary
// partitions M, on an axis to base 2 with ticks at the M that ran. The
// accuracies of the seeds are drawn as their mean with a capped bar, which a
// single seed has not.
//
// Under each M stand its L. Series in which some M has different L get a row
// of L each, headed by their markers. Where one series has several L for an M,
// each is a point, the row shows the range, and the line runs through the
// best of them. Points that share an M stand a little beside one another.
type AccuracyVsM struct {
	Options
	Series []Series
	// Bar says what the error bars are; "" is Std.
	Bar Bar
	// Seeds adds a dot for each seed, right of the bar.
	Seeds bool
	// WidthCurve adds the width G = L·M, dashed, with its own axis on the
	// right.
	WidthCurve bool
}

// Save writes the figure to path in the format that its extension says, one
// of Formats; "csv" is CSV. The file appears whole or not at all.
//
// PDF has the characters of the code page 1252 only, in embedded Liberation
// Serif; SVG embeds the font too; EPS has text as outlines; TeX is a
// stand-alone document for LaTeX with pgf, in its own font.
func (f AccuracyVsM) Save(path string) error { return save(path, f) }

// Encode writes the figure to w in one of Formats.
func (f AccuracyVsM) Encode(w io.Writer, format string) error { return encode(w, format, f) }

// CSV writes the numbers that are drawn, a row for each point in the order
// series, M, L. The columns low and high, the ends of the bar, are empty if
// n = 1; accuracies has the seeds, parted by spaces.
func (f AccuracyVsM) CSV(w io.Writer) error {
	if err := f.validate(); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	out.Write([]string{"series", "L", "M", "width", "n", "mean", "low", "high", "bar", "accuracies"})
	for _, s := range f.curves() {
		for _, p := range s.points {
			var seeds []string
			for _, a := range p.Accuracies {
				seeds = append(seeds, number(a))
			}
			low, high := ends(p.summary)
			out.Write([]string{s.name, strconv.Itoa(p.L), strconv.Itoa(p.M), strconv.Itoa(p.L * p.M),
				strconv.Itoa(p.n), number(p.mean), low, high, string(cmp.Or(f.Bar, Std)), strings.Join(seeds, " ")})
		}
	}
	out.Flush()
	return out.Error()
}

// number has 6 decimals: accuracies are ratios of counts, and the noise of
// their sums stands behind.
func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)
}

func ends(s summary) (low, high string) {
	if s.n < 2 {
		return "", ""
	}
	return number(s.low), number(s.high)
}

func (f AccuracyVsM) options() Options       { return f.Options }
func (f AccuracyVsM) defaultHeight() float64 { return 2.2 }

func (f AccuracyVsM) validate() error {
	if err := f.Bar.validate(); err != nil {
		return err
	}
	names := map[string]bool{}
	drawn := 0
	for i, s := range f.Series {
		if len(f.Series) > 1 && s.Name == "" {
			return fmt.Errorf("series %d of %d has no name", i+1, len(f.Series))
		}
		if names[s.Name] {
			return fmt.Errorf("two series are named %q", s.Name)
		}
		names[s.Name] = true
		pairs := map[[2]int]bool{}
		for _, p := range s.Points {
			where := fmt.Sprintf("series %q, L = %d, M = %d", s.Name, p.L, p.M)
			if p.L < 1 || p.M < 1 {
				return fmt.Errorf("%s: want both at least 1", where)
			}
			if pairs[[2]int{p.L, p.M}] {
				return fmt.Errorf("%s: twice", where)
			}
			pairs[[2]int{p.L, p.M}] = true
			if err := checkValues(p.Accuracies, 0, 100); err != nil {
				return fmt.Errorf("%s: accuracy %w", where, err)
			}
			drawn += len(p.Accuracies)
		}
	}
	if drawn == 0 {
		return errors.New("nothing to draw: no point has an accuracy yet")
	}
	return nil
}

// curvePoint is a point with what is drawn of it.
type curvePoint struct {
	Point
	summary
	// slot places points of one M of one series beside one another: 0 if it
	// is alone, else …, −½, ½, …
	slot float64
}

// curve is a series with at least one point.
type curve struct {
	name   string
	look   look
	points []curvePoint // rising M, then rising L
}

func (f AccuracyVsM) curves() []curve {
	var out []curve
	for i, s := range f.Series {
		c := curve{name: s.Name, look: lookOf(i)}
		for _, p := range s.Points {
			if len(p.Accuracies) > 0 {
				c.points = append(c.points, curvePoint{Point: p, summary: summarize(p.Accuracies, f.Bar, 100)})
			}
		}
		slices.SortFunc(c.points, func(a, b curvePoint) int {
			return cmp.Or(cmp.Compare(a.M, b.M), cmp.Compare(a.L, b.L))
		})
		for _, same := range c.byM() {
			for j := range same {
				same[j].slot = float64(j) - float64(len(same)-1)/2
			}
		}
		if len(c.points) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// byM cuts the points into those of each M.
func (c curve) byM() [][]curvePoint {
	var out [][]curvePoint
	for start := 0; start < len(c.points); {
		end := start
		for end < len(c.points) && c.points[end].M == c.points[start].M {
			end++
		}
		out = append(out, c.points[start:end])
		start = end
	}
	return out
}

// ls is the text under M: the L of its points.
func ls(same []curvePoint) string {
	first, last := same[0].L, same[len(same)-1].L
	if first == last {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d–%d", first, last)
}

// row is a row of L under the axis, for the curves that agree on it.
type row struct {
	curves []curve
	labels map[int]string // by M
}

func rowsOf(curves []curve) []row {
	var rows []row
next:
	for _, c := range curves {
	search:
		for i, r := range rows {
			for _, same := range c.byM() {
				if l, ok := r.labels[same[0].M]; ok && l != ls(same) {
					continue search
				}
			}
			for _, same := range c.byM() {
				r.labels[same[0].M] = ls(same)
			}
			rows[i].curves = append(r.curves, c)
			continue next
		}
		r := row{curves: []curve{c}, labels: map[int]string{}}
		for _, same := range c.byM() {
			r.labels[same[0].M] = ls(same)
		}
		rows = append(rows, r)
	}
	return rows
}

// Distances under the frame of AccuracyVsM.
const (
	leaderHeight vg.Length = 4 // of the lines from ticks to moved labels
	labelRow     vg.Length = 8
	labelGap     vg.Length = 2.5 // between neighbours in a row
	maxMove      vg.Length = 16  // of a label from its tick
)

func (f AccuracyVsM) draw(c draw.Canvas) error {
	curves := f.curves()
	rows := rowsOf(curves)
	var values, widths, logs []float64
	var sums []summary
	var ms []int
	for _, curve := range curves {
		for _, p := range curve.points {
			values = append(values, p.low, p.high)
			if f.Seeds {
				values = append(values, p.Accuracies...)
			}
			widths = append(widths, float64(p.L*p.M))
			logs = append(logs, log2(p.M))
			sums = append(sums, p.summary)
			ms = append(ms, p.M)
		}
	}
	slices.Sort(ms)
	ms = slices.Compact(ms)

	// The frame, from the outside in. Room for ticks is judged by a frame of
	// 7/10 of the height, because the legend may yet take some.
	p := panel{Canvas: c, x: spanOf(logs, 0.04), y: spanOf(values, 0.06)}
	limit := heightLimit(0.7 * c.Size().Y)
	ticks := niceTicks(p.y, limit)
	p.frame.Min.X = c.Min.X + verticalAxisWidth(ticks)
	p.frame.Max.X = c.Max.X - 2*smallMargin
	widthSpan := span{0, 1.08 * slices.Max(widths)}
	widthTicks := niceTicks(widthSpan, limit)
	if f.WidthCurve {
		p.frame.Max.X = c.Max.X - verticalAxisWidth(widthTicks)
	}
	labels := p.placeLabels(ms, rows)
	under := tickLength + labels.leader + 2 + capHeight(smallFont) + labelRow*vg.Length(len(rows)) // to the last baseline
	p.frame.Min.Y = c.Min.Y + smallMargin + 0.25*labelFont.Font.Size + labelFont.Font.Size + 2 + under
	p.frame.Max.Y = c.Max.Y - topMargin - titleHeight(f.Title)

	// Curves as they will be drawn, which needs the final frame: the legend
	// goes inside if some corner is free, else above, where it takes room.
	l := f.legend(c, curves, rows, sums)
	g, at, inside := l.inside(p.frame, f.obstacles(p, curves, rows, widthSpan))
	if !inside {
		var err error
		if g, err = l.above(c.Max.X - smallMargin - p.frame.Min.X); err != nil {
			return err
		}
		at = vg.Point{X: p.frame.Min.X, Y: p.frame.Max.Y}
		p.frame.Max.Y -= g.height + 4
	}
	if err := p.check(); err != nil {
		return err
	}

	if err := drawTitle(c, f.Title, p.frame); err != nil {
		return err
	}
	g.draw(c, at)
	if f.WidthCurve {
		for _, r := range rows {
			stroke(c, widthColor(r, rows), 0.7*lineWidth, widthDashes, p.widthLine(r, widthSpan)...)
		}
		p.rightAxis(widthSpan, widthTicks, "width G = L·M", grey)
	}
	p.leftAxis(ticks, cmp.Or(f.AccuracyLabel, "accuracy (%)"))
	p.bottomLine()
	p.drawLabels(labels, rows)
	xLabel := "secondary partitions M, primary partitions L"
	middle := (p.frame.Min.X + p.frame.Max.X) / 2
	text(c, labelFont, black, vg.Point{X: middle, Y: p.frame.Min.Y - under - 2 - labelFont.Font.Size}, centre, xLabel)

	place := f.placement(p, curves)
	for i, curve := range curves {
		stroke(c, curve.look.color, lineWidth, curve.look.dashes, place.line(i, curve)...)
	}
	for i, curve := range curves {
		for _, pt := range curve.points {
			halo(c, curve.look, vg.Point{X: place.x(i, pt), Y: p.at(0, pt.mean).Y}, markerSize)
		}
	}
	for i, curve := range curves {
		for _, pt := range curve.points {
			x := place.x(i, pt)
			if f.Seeds {
				for _, a := range pt.Accuracies {
					dot := vg.Point{X: x + place.seed, Y: p.at(0, a).Y}
					c.SetColor(blend(curve.look.color, 0.6))
					c.Fill(markerPath(nil, dot, 0.8))
				}
			}
			if pt.n > 1 {
				low, high := p.at(0, pt.low).Y, p.at(0, pt.high).Y
				for _, line := range [][2]vg.Point{
					{{X: x, Y: low}, {X: x, Y: high}},
					{{X: x - capWidth/2, Y: low}, {X: x + capWidth/2, Y: low}},
					{{X: x - capWidth/2, Y: high}, {X: x + capWidth/2, Y: high}},
				} {
					stroke(c, curve.look.color, 0.7*lineWidth, nil, line[:]...)
				}
			}
		}
	}
	for i, curve := range curves {
		for _, pt := range curve.points {
			mark(c, curve.look, vg.Point{X: place.x(i, pt), Y: p.at(0, pt.mean).Y}, markerSize)
		}
	}
	return nil
}

// placement puts the points of one M beside one another.
type placement struct {
	panel
	n, repeats int               // curves, and the most points of an M in one of them
	step       map[int]vg.Length // by M, between neighbouring places; 0 if there is one point
	seed       vg.Length         // from a bar to its seeds
}

func (f AccuracyVsM) placement(p panel, curves []curve) placement {
	out := placement{panel: p, n: len(curves), repeats: 1, step: map[int]vg.Length{}, seed: 3}
	count := map[int]int{} // points of an M
	for _, c := range curves {
		for _, same := range c.byM() {
			count[same[0].M] += len(same)
			out.repeats = max(out.repeats, len(same))
		}
	}
	ms := slices.Sorted(maps.Keys(count))
	for i, m := range ms {
		gap := p.frame.Size().X // to the nearest other M
		for _, j := range []int{i - 1, i + 1} {
			if j >= 0 && j < len(ms) {
				gap = min(gap, vg.Length(math.Abs(float64(p.atX(log2(m))-p.atX(log2(ms[j]))))))
			}
		}
		out.seed = min(out.seed, gap/2)
		if count[m] > 1 {
			// nearer to one another than to the next M
			out.step[m] = min(2.5, 0.6*gap/vg.Length(out.n*out.repeats))
		}
	}
	return out
}

func (p placement) x(series int, pt curvePoint) vg.Length {
	place := float64(p.repeats)*(float64(series)-float64(p.n-1)/2) + pt.slot
	return p.atX(log2(pt.M)) + p.step[pt.M]*vg.Length(place)
}

func log2(m int) float64 { return math.Log2(float64(m)) }

// line runs through the best point of each M.
func (p placement) line(series int, c curve) []vg.Point {
	var out []vg.Point
	for _, same := range c.byM() {
		best := slices.MaxFunc(same, func(a, b curvePoint) int { return cmp.Compare(a.mean, b.mean) })
		out = append(out, vg.Point{X: p.x(series, best), Y: p.at(0, best.mean).Y})
	}
	return out
}

var widthDashes = []vg.Length{2, 1.5}

// widthColor is grey, or where rows have different L, a light shade of the
// row's first series.
func widthColor(r row, rows []row) color.RGBA {
	if len(rows) == 1 {
		return blend(grey, 0.7)
	}
	return blend(r.curves[0].look.color, 0.45)
}

// widthLine runs through the widest pair of each M of the row's curves.
func (p panel) widthLine(r row, s span) []vg.Point {
	widest := map[int]int{}
	for _, c := range r.curves {
		for _, pt := range c.points {
			widest[pt.M] = max(widest[pt.M], pt.L*pt.M)
		}
	}
	var out []vg.Point
	for _, m := range slices.Sorted(maps.Keys(widest)) {
		out = append(out, vg.Point{X: p.atX(log2(m)), Y: along(s, p.frame.Min.Y, p.frame.Max.Y, float64(widest[m]))})
	}
	return out
}

func (f AccuracyVsM) obstacles(p panel, curves []curve, rows []row, widths span) []obstacle {
	var out []obstacle
	place := f.placement(p, curves)
	for i, c := range curves {
		out = append(out, obstaclesOf(place.line(i, c)...)...)
		for _, pt := range c.points {
			x := place.x(i, pt)
			out = append(out, obstaclesOf(vg.Point{X: x, Y: p.at(0, pt.low).Y}, vg.Point{X: x, Y: p.at(0, pt.high).Y})...)
			if f.Seeds {
				for _, a := range pt.Accuracies {
					out = append(out, obstaclesOf(vg.Point{X: x + place.seed, Y: p.at(0, a).Y})...)
				}
			}
		}
	}
	if f.WidthCurve {
		for _, r := range rows {
			out = append(out, obstaclesOf(p.widthLine(r, widths)...)...)
		}
	}
	return out
}

func (f AccuracyVsM) legend(c draw.Canvas, curves []curve, rows []row, sums []summary) legend {
	l := legend{note: note(sums, f.Bar)}
	for _, curve := range curves {
		l.entries = append(l.entries, entry{curve.name, func(from, to vg.Point) {
			stroke(c, curve.look.color, lineWidth, curve.look.dashes, from, to)
			mark(c, curve.look, vg.Point{X: (from.X + to.X) / 2, Y: from.Y}, markerSize)
		}})
	}
	if len(curves) == 1 && curves[0].name == "" {
		l.entries[0].text, l.note = l.note, ""
	}
	if f.WidthCurve {
		l.entries = append(l.entries, entry{"width", func(from, to vg.Point) {
			stroke(c, blend(grey, 0.7), 0.7*lineWidth, widthDashes, from, to)
		}})
	}
	return l
}

// axisLabels are the columns of M and L under the axis.
type axisLabels struct {
	ms      []int
	labeled []int       // the M with a label, in order
	centres []vg.Length // of the labels
	leader  vg.Length   // height of the lines from ticks to labels, 0 if none moved
}

// placeLabels moves columns that would overlap apart, and where that takes
// them too far, leaves out the most crowded; their ticks stay.
func (p panel) placeLabels(ms []int, rows []row) axisLabels {
	out := axisLabels{ms: ms, labeled: slices.Clone(ms)}
	// width of the text under M in a row, or of M itself; 0 if there is none
	width := func(m int, r *row) vg.Length {
		if r == nil {
			return smallFont.Width(strconv.Itoa(m))
		}
		return smallFont.Width(r.labels[m])
	}
	texts := []*row{nil}
	for i := range rows {
		texts = append(texts, &rows[i])
	}
	for {
		at := make([]vg.Length, len(out.labeled))
		needs := make([]vg.Length, len(at))
		var first, last vg.Length // half widths
		for i, m := range out.labeled {
			at[i] = p.atX(log2(m))
			for _, r := range texts {
				w := width(m, r)
				if i == 0 {
					first = max(first, w/2)
				} else if before := width(out.labeled[i-1], r); w > 0 && before > 0 {
					needs[i] = max(needs[i], (before+w)/2+labelGap)
				}
				if i == len(at)-1 {
					last = max(last, w/2)
				}
			}
		}
		out.centres = spread(at, needs, p.frame.Min.X-2+first, p.Max.X-1-last)
		moved := vg.Length(0)
		for i := range out.centres {
			moved = max(moved, out.centres[i]-at[i], at[i]-out.centres[i])
		}
		if out.centres != nil && (moved <= maxMove || len(at) == 1) {
			if moved > 0.5 {
				out.leader = leaderHeight
			}
			return out
		}
		if len(at) == 1 { // one label, and no room for it
			out.centres = at
			return out
		}
		crowded := len(at) - 1
		for i := 1; i+1 < len(at); i++ {
			if crowded == len(at)-1 || at[i+1]-at[i-1] < at[crowded+1]-at[crowded-1] {
				crowded = i
			}
		}
		out.labeled = slices.Delete(out.labeled, crowded, crowded+1)
	}
}

func (p panel) drawLabels(l axisLabels, rows []row) {
	y := p.frame.Min.Y
	for _, m := range l.ms {
		x := p.atX(log2(m))
		stroke(p.Canvas, black, axisWidth, nil, vg.Point{X: x, Y: y}, vg.Point{X: x, Y: y - tickLength})
	}
	if l.leader > 0 {
		for i, m := range l.labeled {
			x := p.atX(log2(m))
			stroke(p.Canvas, grey, 0.7*axisWidth, nil, vg.Point{X: x, Y: y - tickLength}, vg.Point{X: l.centres[i], Y: y - tickLength - l.leader})
		}
	}
	y -= tickLength + l.leader + 2 + capHeight(smallFont)
	head := p.frame.Min.X - 7
	text(p.Canvas, smallFont, black, vg.Point{X: head, Y: y}, right, "M")
	for i, m := range l.labeled {
		text(p.Canvas, smallFont, black, vg.Point{X: l.centres[i], Y: y}, centre, strconv.Itoa(m))
	}
	for _, r := range rows {
		y -= labelRow
		text(p.Canvas, smallFont, black, vg.Point{X: head, Y: y}, right, "L")
		clr := black
		if len(rows) > 1 {
			if len(r.curves) == 1 {
				clr = r.curves[0].look.color
			}
			x := head - smallFont.Width("M") - 3
			for i := len(r.curves) - 1; i >= 0; i-- {
				mark(p.Canvas, r.curves[i].look, vg.Point{X: x, Y: y + capHeight(smallFont)/2}, 0.8*markerSize)
				x -= 2.2 * markerSize
			}
		}
		for i, m := range l.labeled {
			text(p.Canvas, smallFont, clr, vg.Point{X: l.centres[i], Y: y}, centre, r.labels[m])
		}
	}
}

// titleHeight is the room that a title takes above the frame.
func titleHeight(title string) vg.Length {
	if title == "" {
		return 0
	}
	return labelFont.Font.Size + 3
}

func drawTitle(c draw.Canvas, title string, frame vg.Rectangle) error {
	if title == "" {
		return nil
	}
	room := c.Size().X - 2*smallMargin
	w := labelFont.Width(title)
	if w > room {
		return fmt.Errorf("the title is %.1f in wide, the figure has room for %.1f in: raise the width or shorten it", w/vg.Inch, room/vg.Inch)
	}
	x := (frame.Min.X + frame.Max.X) / 2
	x = max(c.Min.X+smallMargin+w/2, min(c.Max.X-smallMargin-w/2, x))
	text(c, labelFont, black, vg.Point{X: x, Y: c.Max.Y - smallMargin - 0.8*labelFont.Font.Size}, centre, title)
	return nil
}
