package plots

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	colors "gonum.org/v1/plot/palette"
	"gonum.org/v1/plot/palette/moreland"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// HeatMap is the figure of accuracy over budget and M: a row for each budget, the first one lowest, and a column
// for each M that some row has. The darker a cell, the more accurate; the best of each row is framed. A cell
// shows the mean of its point, of several L of one M the best, and its L below it where there is room.
type HeatMap struct {
	// Rows are named by their budgets.
	Rows []Series
	// RowLabel names the budget and its unit; "" is "parameters of a block".
	RowLabel string
}

func (f HeatMap) validate() error {
	for _, r := range f.Rows {
		if r.Name == "" {
			return errors.New("a row has no name: want its budget")
		}
	}
	return AccuracyVsM{Series: f.Rows}.validate()
}

// table has a row for each cell; best is 1 or 0.
func (f HeatMap) table() [][]string {
	rows := [][]string{{"budget", "L", "M", "n", "mean", "best"}}
	for _, row := range f.cells() {
		for _, c := range row {
			counts := integers(c.L, c.M, c.n)
			rows = append(rows, slices.Concat([]string{c.row}, counts, []string{number(c.mean), zeroOrOne(c.best)}))
		}
	}
	return rows
}

func (f HeatMap) size() (width, height float64) {
	return columnWidth, max(1.5, min(6, 0.75+0.3*float64(len(f.Rows))))
}

type heatCell struct {
	row string
	drawnPoint
	best bool // of its row
}

// cells returns the cells of each row, by rising M.
func (f HeatMap) cells() (rows [][]heatCell) {
	for _, s := range (AccuracyVsM{Series: f.Rows}).drawn() {
		var row []heatCell
		top := 0
		for i, same := range s.byM {
			row = append(row, heatCell{row: s.name, drawnPoint: best(same)})
			if row[i].mean > row[top].mean {
				top = i
			}
		}
		row[top].best = true
		rows = append(rows, row)
	}
	return rows
}

// heat returns the colours of the cells, from light to dark, so that they can be told apart in grey print too.
func heat() colors.Palette {
	m, err := moreland.NewLuminance([]color.Color{ // from dark to light
		color.RGBA{0, 40, 80, 255}, palette[0], color.RGBA{148, 196, 228, 255}, color.RGBA{226, 237, 246, 255},
	})
	if err != nil {
		panic(err) // the colours are above
	}
	m.SetMax(1)
	return colors.Reverse(m).Palette(heatSteps)
}

// heatGrid is what gonum's heat map draws: the means, NaN where there is no cell.
type heatGrid struct {
	ms    []int
	means [][]float64 // by row and column
}

func (g heatGrid) Dims() (columns, rows int) { return len(g.ms), len(g.means) }
func (g heatGrid) Z(column, row int) float64 { return g.means[row][column] }
func (g heatGrid) X(column int) float64      { return float64(column) }
func (g heatGrid) Y(row int) float64         { return float64(row) }

func (f HeatMap) layout(size vg.Point, o Options) layout {
	face := o.typeface()
	rows := f.cells()
	var ms []int
	var means []float64
	for _, c := range slices.Concat(rows...) {
		ms, means = append(ms, c.M), append(means, c.mean)
	}
	slices.Sort(ms)
	ms = slices.Compact(ms)
	scale := o.Y.of(spanOf(means, 0), nil)
	grid := heatGrid{ms: ms}
	var names plot.ConstantTicks
	var frames []plot.Plotter
	for i, row := range rows {
		values := slices.Repeat([]float64{math.NaN()}, len(ms))
		for _, c := range row {
			k := slices.Index(ms, c.M)
			if values[k] = c.mean; c.best {
				x, y := float64(k), float64(i)
				frames = append(frames, box(x-0.5, y-0.5, x+0.5, y+0.5, 1.2, palette[1]))
			}
		}
		grid.means = append(grid.means, values)
		names = append(names, plot.Tick{Value: float64(i), Label: row[0].row})
	}
	x, y := span{-0.5, float64(len(ms)) - 0.5}, span{-0.5, float64(len(rows)) - 0.5}

	p := newPanel(face, "secondary partitions M", cmp.Or(f.RowLabel, "parameters of a block"))
	if p.outside = scale.high < slices.Min(means) || scale.low > slices.Max(means); p.outside {
		return one(legend{}, p) // which is refused; no scale of colours can be drawn
	}
	p.right = &rightAxis{face: face, scale: scale, ticks: heightTicks(size.Y).Ticks(scale.low, scale.high),
		label: accuracyLabel(o), offset: scaleGap + scaleWidth, color: black}
	cells := &plotter.HeatMap{GridXYZ: grid, Palette: heat(), Min: scale.low, Max: scale.high}
	shades := cells.Palette.Colors()
	cells.Underflow, cells.Overflow = shades[0], shades[len(shades)-1] // beyond the limits of the scale
	// Not as a plotter of its own, which would want room for its smallest cells.
	p.Add(plotFunc(cells.Plot), cellTexts(face, ms, rows, scale), box(x.low, y.low, x.high, y.high, 0.5, black))
	p.Add(frames...)
	p.Add(colorScale(cells.Palette), p.right)
	p.setRanges(x, y)
	p.X.Tick.Length, p.Y.Tick.Length, p.X.Width, p.Y.Width, p.X.Padding = 0, 0, 0, 0, 2 // the outline is drawn
	p.Y.Tick.Marker = names
	p.X.Tick.Marker = columnTicks(face, ms, p.DataCanvas(blank(size)).Size().X/vg.Length(len(ms)))
	return one(legend{}, p)
}

const (
	heatSteps            = 256 // finer than an eye tells apart
	scaleGap   vg.Length = 6   // from the frame to the scale of colours
	scaleWidth vg.Length = 6
)

// plotFunc is a plotter that is a function.
type plotFunc func(draw.Canvas, *plot.Plot)

// Plot calls the function.
func (f plotFunc) Plot(c draw.Canvas, p *plot.Plot) { f(c, p) }

// box is the outline of a rectangle.
func box(left, bottom, right, top float64, width vg.Length, clr color.Color) *plotter.Polygon {
	corners := plotter.XYs{{X: left, Y: bottom}, {X: right, Y: bottom}, {X: right, Y: top}, {X: left, Y: top}}
	return &plotter.Polygon{XYs: []plotter.XYs{corners}, LineStyle: draw.LineStyle{Color: clr, Width: width}}
}

// columnTicks are the M of the columns of this width, less those whose labels would overlap.
func columnTicks(face *typeface, ms []int, width vg.Length) (ticks plot.ConstantTicks) {
	end := -width // of the label before
	for i, m := range ms {
		label := strconv.Itoa(m)
		at, half := width*vg.Length(i), face.small.Width(label)/2
		if at-half >= end {
			ticks = append(ticks, plot.Tick{Value: float64(i), Label: label})
			end = at + half + labelGap
		}
	}
	return ticks
}

// colorScale draws the colours beside the frame. gonum's ColorBar is an image, which EPS figures cannot have.
func colorScale(p colors.Palette) plotFunc {
	return func(c draw.Canvas, _ *plot.Plot) {
		from := c.Max.X + scaleGap
		for i, clr := range p.Colors() {
			// Each reaches up to the top, or thin gaps would show between them.
			low := vg.Point{X: from, Y: c.Y(float64(i) / heatSteps)}
			c.SetColor(clr)
			c.Fill(vg.Rectangle{Min: low, Max: vg.Point{X: from + scaleWidth, Y: c.Max.Y}}.Path())
		}
	}
}

// cellTexts writes the means into the cells, and under them the L, where there is room for those of all cells;
// a dash stands where there is no cell.
func cellTexts(face *typeface, ms []int, rows [][]heatCell, scale span) plotFunc {
	return func(c draw.Canvas, _ *plot.Plot) {
		size := face.small.Font.Size
		w, h := c.Size().X/vg.Length(len(ms)), c.Size().Y/vg.Length(len(rows))
		fits := h >= size+2
		for _, cell := range slices.Concat(rows...) {
			fits = fits && face.small.Width(fmt.Sprintf("%.1f", cell.mean)) <= w-1
		}
		for i, row := range rows {
			for k, m := range ms {
				middle := vg.Point{X: c.Min.X + w*(vg.Length(k)+0.5), Y: c.Min.Y + h*(vg.Length(i)+0.5) - face.digits/2}
				style := styled(face.small, black, draw.XCenter, draw.YBottom)
				at := slices.IndexFunc(row, func(cell heatCell) bool { return cell.M == m })
				switch {
				case at < 0:
					style.Color = grey
					write(c, style, middle, "–")
					continue
				case !fits:
					continue
				case scale.part(row[at].mean) > 0.5:
					style.Color = white
				}
				if h >= 2*size+3 {
					middle.Y += size/2 + 0.5
					if l := "L" + strconv.Itoa(row[at].L); face.small.Width(l) <= w-1 {
						write(c, style, vg.Point{X: middle.X, Y: middle.Y - size - 1}, l)
					}
				}
				write(c, style, middle, fmt.Sprintf("%.1f", row[at].mean))
			}
		}
	}
}
