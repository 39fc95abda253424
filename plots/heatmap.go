package plots

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// HeatMap is the figure of accuracy over budget and M: a row for each budget,
// the first one lowest, a column for each M that some row has. The darker a
// cell, the more accurate; the best of each row is framed. A cell has the mean
// of its point, of several L of one M the best, and its L below, where there is
// room.
type HeatMap struct {
	Options
	// Rows are named by their budgets.
	Rows []Series
	// RowLabel names the budget and its unit; "" is "parameters of a block".
	RowLabel string
}

// Save writes the figure to path in the format that its extension says, one
// of Formats; see AccuracyVsM.Save.
func (f HeatMap) Save(path string) error { return save(path, f) }

// Encode writes the figure to w in one of Formats.
func (f HeatMap) Encode(w io.Writer, format string) error { return encode(w, format, f) }

// CSV writes the numbers that are drawn, a row for each cell; best is 1 or 0.
func (f HeatMap) CSV(w io.Writer) error {
	if err := f.validate(); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	out.Write([]string{"budget", "L", "M", "n", "mean", "best"})
	for _, row := range f.cells() {
		for _, cell := range row {
			best := "0"
			if cell.best {
				best = "1"
			}
			out.Write([]string{cell.row, strconv.Itoa(cell.L), strconv.Itoa(cell.M), strconv.Itoa(cell.n), number(cell.mean), best})
		}
	}
	out.Flush()
	return out.Error()
}

const heatRow = 0.3 // inches

func (f HeatMap) options() Options { return f.Options }
func (f HeatMap) defaultHeight() float64 {
	return max(1.5, min(6, 0.75+heatRow*float64(len(f.Rows))))
}

func (f HeatMap) validate() error {
	if err := (AccuracyVsM{Series: f.Rows}).validate(); err != nil {
		return err
	}
	for _, r := range f.Rows {
		if r.Name == "" {
			return errors.New("a row has no name: want its budget")
		}
	}
	return nil
}

type heatCell struct {
	row string
	Point
	summary
	best bool // of its row
}

// cells are those of each row by rising M.
func (f HeatMap) cells() [][]heatCell {
	var out [][]heatCell
	for i, curve := range (AccuracyVsM{Series: f.Rows}).curves() {
		out = append(out, nil)
		top := -1
		for _, same := range curve.byM() {
			best := slices.MaxFunc(same, func(a, b curvePoint) int { return cmp.Compare(a.mean, b.mean) })
			out[i] = append(out[i], heatCell{row: curve.name, Point: best.Point, summary: best.summary})
			if top < 0 || best.mean > out[i][top].mean {
				top = len(out[i]) - 1
			}
		}
		out[i][top].best = true
	}
	return out
}

// heat is the colour of a fraction, from light to dark: sky blue is between, so
// that the steps can be told apart on grey paper too.
func heat(fraction float64) color.RGBA {
	stops := [...]color.RGBA{{226, 237, 246, 255}, {148, 196, 228, 255}, {0, 114, 178, 255}, {0, 40, 80, 255}}
	at := max(0, min(1, fraction)) * float64(len(stops)-1)
	i := min(int(at), len(stops)-2)
	mix := func(a, b uint8) uint8 {
		return uint8(math.Round(float64(a) + (at-float64(i))*(float64(b)-float64(a))))
	}
	a, b := stops[i], stops[i+1]
	return color.RGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 255}
}

func (f HeatMap) draw(c draw.Canvas) error {
	rows := f.cells()
	var ms []int
	var means []float64
	names := vg.Length(0)
	for _, row := range rows {
		names = max(names, smallFont.Width(row[0].row))
		for _, cell := range row {
			ms, means = append(ms, cell.M), append(means, cell.mean)
		}
	}
	slices.Sort(ms)
	ms = slices.Compact(ms)
	s := spanOf(means, 0)
	const barWidth, barGap vg.Length = 6, 6
	bottom := c.Min.Y + smallMargin + 1.25*labelFont.Font.Size + 2 + capHeight(smallFont) + 3
	p := panel{Canvas: c, y: s}
	p.frame = vg.Rectangle{
		Min: vg.Point{X: c.Min.X + smallMargin + labelFont.Font.Size + 3 + names + 3, Y: bottom},
		Max: vg.Point{Y: c.Max.Y - topMargin - titleHeight(f.Title)},
	}
	ticks := niceTicks(s, heightLimit(p.frame.Max.Y-bottom))
	p.frame.Max.X = c.Max.X - verticalAxisWidth(ticks) - barGap - barWidth
	if err := p.check(); err != nil {
		return err
	}
	if err := drawTitle(c, f.Title, p.frame); err != nil {
		return err
	}
	w, h := p.frame.Size().X/vg.Length(len(ms)), p.frame.Size().Y/vg.Length(len(rows))
	box := func(i, column int) vg.Rectangle {
		at := vg.Point{X: p.frame.Min.X + w*vg.Length(column), Y: p.frame.Min.Y + h*vg.Length(i)}
		return vg.Rectangle{Min: at, Max: vg.Point{X: at.X + w, Y: at.Y + h}}
	}
	fits := h >= smallFont.Font.Size+2
	for _, row := range rows {
		for _, cell := range row {
			fits = fits && smallFont.Width(fmt.Sprintf("%.1f", cell.mean)) <= w-1
		}
	}
	withL := fits && h >= 2*smallFont.Font.Size+3
	for i, row := range rows {
		for column, m := range ms {
			if b := box(i, column); !slices.ContainsFunc(row, func(cell heatCell) bool { return cell.M == m }) {
				text(c, smallFont, grey, vg.Point{X: (b.Min.X + b.Max.X) / 2, Y: (b.Min.Y+b.Max.Y)/2 - capHeight(smallFont)/2}, centre, "–")
			}
		}
		for _, cell := range row {
			b := box(i, slices.Index(ms, cell.M))
			fraction := (cell.mean - s.low) / (s.high - s.low)
			fill(c, heat(fraction), rectangle(b))
			if !fits {
				continue
			}
			clr := black
			if fraction > 0.5 {
				clr = white
			}
			x, y := (b.Min.X+b.Max.X)/2, (b.Min.Y+b.Max.Y)/2-capHeight(smallFont)/2
			if withL {
				y += smallFont.Font.Size/2 + 0.5
				if l := "L" + strconv.Itoa(cell.L); smallFont.Width(l) <= w-1 {
					text(c, smallFont, clr, vg.Point{X: x, Y: y - smallFont.Font.Size - 1}, centre, l)
				}
			}
			text(c, smallFont, clr, vg.Point{X: x, Y: y}, centre, fmt.Sprintf("%.1f", cell.mean))
		}
	}
	for i, row := range rows { // above the neighbours
		for _, cell := range row {
			if !cell.best {
				continue
			}
			const inset = 0.6
			b := box(i, slices.Index(ms, cell.M))
			b.Min, b.Max = b.Min.Add(vg.Point{X: inset, Y: inset}), b.Max.Sub(vg.Point{X: inset, Y: inset})
			corners := rectangle(b)
			stroke(c, palette[1], 1.2, nil, append(corners, corners[0], corners[1])...)
		}
		text(c, smallFont, black, vg.Point{X: p.frame.Min.X - 3, Y: p.frame.Min.Y + h*(vg.Length(i)+0.5) - capHeight(smallFont)/2}, right, row[0].row)
	}
	end := p.frame.Min.X // of the label before
	for i, m := range ms {
		label := strconv.Itoa(m)
		x := p.frame.Min.X + w*(vg.Length(i)+0.5)
		if x-smallFont.Width(label)/2 >= end {
			text(c, smallFont, black, vg.Point{X: x, Y: bottom - 3 - capHeight(smallFont)}, centre, label)
			end = x + smallFont.Width(label)/2 + labelGap
		}
	}
	outline := rectangle(p.frame)
	stroke(c, black, axisWidth, nil, append(outline, outline[0])...)
	text(c, labelFont, black, vg.Point{X: (p.frame.Min.X + p.frame.Max.X) / 2, Y: c.Min.Y + smallMargin + 0.25*labelFont.Font.Size}, centre, "secondary partitions M")
	label := cmp.Or(f.RowLabel, "parameters of a block")
	verticalText(c, labelFont, black, vg.Point{X: c.Min.X + smallMargin + 0.75*labelFont.Font.Size, Y: p.titleY(label)}, label)

	// the scale, in steps finer than an eye tells apart
	const steps = 64
	from := p.frame.Max.X + barGap
	for i := range steps {
		y := func(k int) vg.Length { return p.frame.Min.Y + p.frame.Size().Y*vg.Length(k)/steps }
		// each up to the top, or seams would show between them
		fill(c, heat((float64(i)+0.5)/steps), rectangle(vg.Rectangle{Min: vg.Point{X: from, Y: y(i)}, Max: vg.Point{X: from + barWidth, Y: p.frame.Max.Y}}))
	}
	scale := p
	scale.frame.Max.X = from + barWidth
	scale.rightAxis(s, ticks, cmp.Or(f.AccuracyLabel, "accuracy (%)"), black)
	return nil
}
