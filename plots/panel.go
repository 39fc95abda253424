package plots

import (
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// span is a range of values along an axis, low < high.
type span struct{ low, high float64 }

// spanOf covers the values with a margin, a fraction of their range; a single
// value gets a range of its own.
func spanOf(values []float64, margin float64) span {
	s := span{math.Inf(1), math.Inf(-1)}
	for _, v := range values {
		s.low, s.high = min(s.low, v), max(s.high, v)
	}
	if s.high-s.low < 1e-6 { // one value, or one with the noise of its sum
		return span{s.low - 1, s.high + 1}
	}
	m := margin * (s.high - s.low)
	return span{s.low - m, s.high + m}
}

// tick is a labelled place on an axis.
type tick struct {
	value float64
	label string
}

// niceTicks returns at most limit ticks at multiples of 1, 2, 2.5 or 5 times a
// power of ten inside the span. A limit under 5 counts as 5: then there are at
// least 2, since the next coarser step is at most 2.5 times as large.
func niceTicks(s span, limit int) []tick {
	for exponent := math.Floor(math.Log10(s.high-s.low)) - 2; ; exponent++ {
		for _, digit := range []float64{1, 2, 2.5, 5} {
			step := digit * math.Pow(10, exponent)
			first, last := math.Ceil(s.low/step-1e-9), math.Floor(s.high/step+1e-9)
			if int(last-first)+1 > max(limit, 5) {
				continue
			}
			decimals := max(0, -int(exponent))
			if digit == 2.5 {
				decimals = max(0, 1-int(exponent))
			}
			var ticks []tick
			for k := first; k <= last; k++ {
				ticks = append(ticks, tick{k * step, strconv.FormatFloat(k*step+0, 'f', decimals, 64)})
			}
			return ticks
		}
	}
}

// panel is a frame on the page with its two axes.
type panel struct {
	draw.Canvas
	frame vg.Rectangle
	x, y  span
}

// The smallest frame that is still a figure.
const minFrame vg.Length = 40

func (p panel) check() error {
	if size := p.frame.Size(); size.X < minFrame || size.Y < minFrame {
		page := p.Rectangle.Size()
		return fmt.Errorf("figure of %.3g × %.3g in: %.2g × %.2g in are left beside its labels and legend; make it larger or draw fewer series",
			page.X/vg.Inch, page.Y/vg.Inch, max(0, size.X/vg.Inch), max(0, size.Y/vg.Inch))
	}
	return nil
}

func (p panel) at(x, y float64) vg.Point {
	return vg.Point{X: p.atX(x), Y: along(p.y, p.frame.Min.Y, p.frame.Max.Y, y)}
}

func (p panel) atX(x float64) vg.Length { return along(p.x, p.frame.Min.X, p.frame.Max.X, x) }

func along(s span, from, to vg.Length, v float64) vg.Length {
	return from + vg.Length((v-s.low)/(s.high-s.low))*(to-from)
}

// heightLimit is how many ticks a vertical axis of this height has room for.
func heightLimit(h vg.Length) int { return int(h / 17) }

// tickWidth is the room for the labels of a vertical axis.
func tickWidth(ticks []tick) vg.Length {
	w := vg.Length(0)
	for _, t := range ticks {
		w = max(w, smallFont.Width(t.label))
	}
	return w
}

// verticalAxisWidth is the room for ticks, labels and title beside the frame.
func verticalAxisWidth(ticks []tick) vg.Length {
	return smallMargin + labelFont.Font.Size + 2 + tickWidth(ticks) + 2 + tickLength
}

// leftAxis draws the left edge of the frame with outward ticks and its title.
func (p panel) leftAxis(ticks []tick, title string) {
	x := p.frame.Min.X
	stroke(p.Canvas, black, axisWidth, nil, vg.Point{X: x, Y: p.frame.Min.Y}, vg.Point{X: x, Y: p.frame.Max.Y})
	for _, t := range ticks {
		y := along(p.y, p.frame.Min.Y, p.frame.Max.Y, t.value)
		stroke(p.Canvas, black, axisWidth, nil, vg.Point{X: x - tickLength, Y: y}, vg.Point{X: x, Y: y})
		text(p.Canvas, smallFont, black, vg.Point{X: x - tickLength - 2, Y: y - capHeight(smallFont)/2}, right, t.label)
	}
	baseline := p.frame.Min.X - verticalAxisWidth(ticks) + smallMargin + 0.75*labelFont.Font.Size
	verticalText(p.Canvas, labelFont, black, vg.Point{X: baseline, Y: p.titleY(title)}, title)
}

// rightAxis is leftAxis on the other side, with a scale of its own.
func (p panel) rightAxis(s span, ticks []tick, title string, clr color.Color) {
	x := p.frame.Max.X
	stroke(p.Canvas, clr, axisWidth, nil, vg.Point{X: x, Y: p.frame.Min.Y}, vg.Point{X: x, Y: p.frame.Max.Y})
	for _, t := range ticks {
		y := along(s, p.frame.Min.Y, p.frame.Max.Y, t.value)
		stroke(p.Canvas, clr, axisWidth, nil, vg.Point{X: x, Y: y}, vg.Point{X: x + tickLength, Y: y})
		text(p.Canvas, smallFont, clr, vg.Point{X: x + tickLength + 2, Y: y - capHeight(smallFont)/2}, left, t.label)
	}
	baseline := x + verticalAxisWidth(ticks) - smallMargin - 0.25*labelFont.Font.Size
	verticalText(p.Canvas, labelFont, clr, vg.Point{X: baseline, Y: p.titleY(title)}, title)
}

// titleY centres a vertical title on the frame, moved so that it stays on the
// page.
func (p panel) titleY(title string) vg.Length {
	half := labelFont.Width(title)/2 + smallMargin
	y := (p.frame.Min.Y + p.frame.Max.Y) / 2
	return max(p.Min.Y+half, min(p.Max.Y-half, y))
}

// bottomLine draws the bottom edge of the frame.
func (p panel) bottomLine() {
	stroke(p.Canvas, black, axisWidth, nil, p.frame.Min, vg.Point{X: p.frame.Max.X, Y: p.frame.Min.Y})
}

// spread moves labels apart: it returns their centres, in order, each at least
// needs[i] right of the one before it (needs[0] is not used) and all between
// low and high, such that the sum of the squared displacements is the least.
// It returns nil if they do not fit.
func spread(centres, needs []vg.Length, low, high vg.Length) []vg.Length {
	// Less the room that the labels before it need, each label must not be
	// left of the one before it: isotonic regression, by pooling neighbours.
	n := len(centres)
	room := make([]vg.Length, n)
	type pool struct {
		mean  vg.Length
		count int
	}
	var pools []pool
	for i := range n {
		if i > 0 {
			room[i] = room[i-1] + needs[i]
		}
		q := pool{centres[i] - room[i], 1}
		for len(pools) > 0 && pools[len(pools)-1].mean >= q.mean {
			last := pools[len(pools)-1]
			pools = pools[:len(pools)-1]
			count := last.count + q.count
			q = pool{(last.mean*vg.Length(last.count) + q.mean*vg.Length(q.count)) / vg.Length(count), count}
		}
		pools = append(pools, q)
	}
	high -= room[n-1]
	if low > high {
		return nil
	}
	var out []vg.Length
	for _, q := range pools {
		for range q.count {
			out = append(out, max(low, min(high, q.mean))+room[len(out)])
		}
	}
	return out
}

// obstacle is a drawn line that a legend must not cover.
type obstacle struct{ from, to vg.Point }

// crosses reports whether the line touches the rectangle.
func (o obstacle) crosses(r vg.Rectangle) bool {
	// Liang and Barsky: the part of the line inside each edge's half-plane.
	enter, leave := vg.Length(0), vg.Length(1)
	d := o.to.Sub(o.from)
	for _, edge := range []struct{ speed, distance vg.Length }{
		{-d.X, o.from.X - r.Min.X}, {d.X, r.Max.X - o.from.X},
		{-d.Y, o.from.Y - r.Min.Y}, {d.Y, r.Max.Y - o.from.Y},
	} {
		switch {
		case edge.speed == 0 && edge.distance < 0:
			return false
		case edge.speed < 0:
			enter = max(enter, edge.distance/edge.speed)
		case edge.speed > 0:
			leave = min(leave, edge.distance/edge.speed)
		}
	}
	return enter <= leave
}

// obstaclesOf is a line through the points, or the one point.
func obstaclesOf(points ...vg.Point) []obstacle {
	if len(points) == 1 {
		return []obstacle{{points[0], points[0]}}
	}
	var out []obstacle
	for i := 1; i < len(points); i++ {
		out = append(out, obstacle{points[i-1], points[i]})
	}
	return out
}
