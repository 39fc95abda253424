package plots

import (
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// partitionLabels is a plotter of the labels under the axis of AccuracyVsM, which gonum's axis lacks: the M that
// ran, and below them rows with their L. Where labels of neighbours would overlap, it moves them apart; thin
// lines lead from the ticks to them.
type partitionLabels struct {
	face   *typeface
	ms     []int // rising
	rows   []partitionRow
	leader vg.Length // height of the lines from ticks to labels; 0 if no label is moved
}

// partitionRow is a row of L, for the series that agree on them.
type partitionRow struct {
	series []drawnSeries
	labels map[int]string // by M
}

// Distances under the frame.
const (
	labelRow vg.Length = 8
	labelGap vg.Length = 2.5 // between neighbours in a row
	maxMove  vg.Length = 16  // of a label from its tick
)

// within leaves out the M that the axis leaves out.
func (l *partitionLabels) within(axis span) {
	l.ms = slices.DeleteFunc(l.ms, func(m int) bool { return log2(m) < axis.low || log2(m) > axis.high })
}

// height is the room under the ticks.
func (l *partitionLabels) height() vg.Length {
	return l.leader + labelRow*vg.Length(1+len(l.rows))
}

// Ticks makes the labels a ticker too: the ticks without labels.
func (l *partitionLabels) Ticks(float64, float64) (ticks []plot.Tick) {
	for _, m := range l.ms {
		ticks = append(ticks, plot.Tick{Value: log2(m)})
	}
	return ticks
}

// texts are the labels of an M: its number, and its L in each row.
func (l *partitionLabels) texts(m int) []string {
	list := []string{strconv.Itoa(m)}
	for _, r := range l.rows {
		list = append(list, r.labels[m])
	}
	return list
}

// Plot draws the labels.
func (l *partitionLabels) Plot(c draw.Canvas, p *plot.Plot) {
	labeled, ticks, centres := l.place(c, p)
	top := c.Min.Y - tickLength
	leader := draw.LineStyle{Color: grey, Width: 0.35}
	for i := range labeled {
		c.StrokeLine2(leader, ticks[i], top, centres[i], top-l.leader)
	}
	row := func(k int, head string, series []drawnSeries) {
		style := styled(l.face.small, black, draw.XRight, draw.YBottom)
		at := vg.Point{X: c.Min.X - 7, Y: top - l.leader - 2 - l.face.digits - labelRow*vg.Length(k)}
		write(c, style, at, head)
		if len(series) == 1 {
			style.Color = series[0].look.line.Color
		}
		style.XAlign = draw.XCenter
		for i, m := range labeled {
			write(c, style, vg.Point{X: centres[i], Y: at.Y}, l.texts(m)[k])
		}
		at.X -= l.face.small.Width("M") + 3
		for _, s := range slices.Backward(series) {
			glyph := s.look.glyph
			glyph.Radius *= 0.8
			c.DrawGlyphNoClip(glyph, vg.Point{X: at.X, Y: at.Y + l.face.digits/2})
			at.X -= 2.2 * markerSize
		}
	}
	row(0, "M", nil)
	for k, r := range l.rows {
		if len(l.rows) == 1 {
			r.series = nil // all series, whose looks need not be said
		}
		row(k+1, "L", r.series)
	}
}

// reserve makes room for leaders, if labels move under a frame of this size.
func (l *partitionLabels) reserve(frame draw.Canvas, p *plot.Plot) {
	_, ticks, centres := l.place(frame, p)
	for i := range ticks {
		if moved := centres[i] - ticks[i]; max(moved, -moved) > 0.5 {
			l.leader = 4
		}
	}
}

// place returns the M that get labels, and their ticks and the centres of these labels under the frame. It moves
// labels that would overlap apart. Where that would take them too far, it leaves out the most crowded ones.
func (l *partitionLabels) place(frame draw.Canvas, p *plot.Plot) (labeled []int, at, centres []vg.Length) {
	toX, _ := p.Transforms(&frame)
	labeled = slices.Clone(l.ms)
	for {
		n := len(labeled)
		if n == 0 {
			return nil, nil, nil // the limits of the axis leave out every M
		}
		at = make([]vg.Length, n)
		needs := make([]vg.Length, n)
		half := make([]vg.Length, n) // of the widest text
		for i, m := range labeled {
			at[i] = toX(log2(m))
			for k, text := range l.texts(m) {
				w := l.face.small.Width(text)
				half[i] = max(half[i], w/2)
				if i > 0 && w > 0 {
					if before := l.face.small.Width(l.texts(labeled[i-1])[k]); before > 0 {
						needs[i] = max(needs[i], (before+w)/2+labelGap)
					}
				}
			}
		}
		centres = spread(at, needs, frame.Min.X-2+half[0], frame.Max.X+3-half[n-1])
		if n == 1 && centres == nil {
			return labeled, at, at // there is no room for the one label
		}
		moved := vg.Length(0)
		for i := range centres {
			moved = max(moved, centres[i]-at[i], at[i]-centres[i])
		}
		if n == 1 || centres != nil && moved <= maxMove {
			return labeled, at, centres
		}
		crowded := n - 1
		for i := 1; i+1 < n; i++ {
			if crowded == n-1 || at[i+1]-at[i-1] < at[crowded+1]-at[crowded-1] {
				crowded = i
			}
		}
		labeled = slices.Delete(labeled, crowded, crowded+1)
	}
}

// spread moves labels apart. It returns their centres, in order, each at least needs[i] right of the one before it
// (needs[0] is not used) and all between low and high, such that the sum of the squared displacements is the
// least. It returns nil if they do not fit.
func spread(centres, needs []vg.Length, low, high vg.Length) []vg.Length {
	// Less the room that the labels before it need, no label may be left of the one before it: this is isotonic
	// regression, which is solved by pooling neighbours.
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
