package plots

import (
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

var (
	white = color.RGBA{255, 255, 255, 255}
	black = color.RGBA{0, 0, 0, 255}
	grey  = color.RGBA{110, 110, 110, 255}
)

// palette is Okabe and Ito's. The colours that differ most come first; yellow, which is hard to see as a line on
// paper, comes last.
var palette = [...]color.RGBA{
	{0, 114, 178, 255},   // blue
	{213, 94, 0, 255},    // vermillion
	{0, 158, 115, 255},   // bluish green
	{204, 121, 167, 255}, // reddish purple
	{230, 159, 0, 255},   // orange
	{86, 180, 233, 255},  // sky blue
	{0, 0, 0, 255},       // black
	{240, 228, 66, 255},  // yellow
}

var dashes = [...][]vg.Length{
	nil,
	{4, 1.5},
	{1, 1.2},
	{5, 1.5, 1, 1.5},
	{8, 2},
}

// shapes are the markers. The lengths of palette, dashes and shapes share no divisor, so that the combination of
// all three repeats after 8·5·7 series only.
var shapes = [...]struct {
	glyph draw.GlyphDrawer
	mark  string // see look
}{
	{draw.CircleGlyph{}, "mark=*"},
	{polygonGlyph{2, 6, 10, 14}, "mark=square*"},
	{polygonGlyph{0, 16. / 3, 32. / 3}, "mark=triangle*"},
	{polygonGlyph{0, 4, 8, 12}, "mark=diamond*"},
	{polygonGlyph{8, 8 + 16./3, 8 + 32./3}, "mark=triangle*,mark options={rotate=180}"}, // point down
	{polygonGlyph{0, 3.2, 6.4, 9.6, 12.8}, "mark=pentagon*"},
	{polygonGlyph{4, 4 + 16./3, 4 + 32./3}, "mark=triangle*,mark options={rotate=-90}"}, // point sideways
}

// polygonGlyph is a filled marker, of which gonum has few: its corners on a circle, in sixteenths of a turn from
// the top.
type polygonGlyph []float64

// DrawGlyph draws the marker with about the area of a circle of that radius.
func (g polygonGlyph) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, pt vg.Point) {
	n := float64(len(g))
	r := style.Radius * vg.Length(math.Sqrt(2*math.Pi/(n*math.Sin(2*math.Pi/n))))
	var corners []vg.Point
	for _, corner := range g {
		sin, cos := math.Sincos(corner * math.Pi / 8)
		corners = append(corners, vg.Point{X: pt.X + r*vg.Length(sin), Y: pt.Y + r*vg.Length(cos)})
	}
	c.FillPolygon(style.Color, corners)
}

// crossGlyph is a cross that is larger and bolder than gonum's.
type crossGlyph struct{}

// DrawGlyph draws the cross.
func (crossGlyph) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, pt vg.Point) {
	stroke, r := draw.LineStyle{Color: style.Color, Width: lineWidth}, 1.2*style.Radius
	c.StrokeLine2(stroke, pt.X-r, pt.Y-r, pt.X+r, pt.Y+r)
	c.StrokeLine2(stroke, pt.X-r, pt.Y+r, pt.X+r, pt.Y-r)
}

const (
	lineWidth  vg.Length = 0.9
	barWidth   vg.Length = 0.65 // of the lines of an error bar
	capWidth   vg.Length = 3    // from end to end of the caps of an error bar
	markerSize vg.Length = 1.8  // radius of a circle
	tickLength vg.Length = 2.5
)

// look is what tells a series from the others.
type look struct {
	line  draw.LineStyle
	glyph draw.GlyphStyle
	mark  string // the glyph as an option of pgfplots
}

// lookOf returns the look of series i.
func lookOf(i int) look {
	clr := palette[i%len(palette)]
	return look{
		draw.LineStyle{Color: clr, Width: lineWidth, Dashes: dashes[i%len(dashes)]},
		draw.GlyphStyle{Color: clr, Radius: markerSize, Shape: shapes[i%len(shapes)].glyph},
		shapes[i%len(shapes)].mark,
	}
}

// sample is the look in a legend.
func (l look) sample() []plot.Thumbnailer {
	return []plot.Thumbnailer{line(l.line, nil), scatter(l.glyph, nil)}
}

// blend returns a colour with the given opacity over white, as an opaque colour.
func blend(clr color.Color, opacity float64) color.RGBA {
	c := color.RGBAModel.Convert(clr).(color.RGBA)
	mix := func(v uint8) uint8 { return uint8(math.Round(255 - opacity*(255-float64(v)))) }
	return color.RGBA{mix(c.R), mix(c.G), mix(c.B), 255}
}

func line(l draw.LineStyle, xys plotter.XYs) *plotter.Line {
	return &plotter.Line{XYs: xys, LineStyle: l}
}

func scatter(g draw.GlyphStyle, xys plotter.XYs) *plotter.Scatter {
	return &plotter.Scatter{XYs: xys, GlyphStyle: g}
}

// halos are the thin white edges of markers, which separate them from the lines under them. Error bars are drawn
// over the halos, because a halo would hide a short bar.
func halos(xys plotter.XYs) *plotter.Scatter {
	return scatter(draw.GlyphStyle{Color: white, Radius: markerSize + 0.7, Shape: draw.CircleGlyph{}}, xys)
}

// series is what a panel shows of a series, for TikZ: a line, and points with error bars. The x are those of the axis.
type series struct {
	name   string
	look   look
	way    plotter.XYs // of the line; none if there is no line
	points summaries   // with error bars
	steps  bool        // the line runs in steps, which rise at the points
	band   summaries   // the ends of an area
}

// layers are what figures draw of their series: the lines of all, over them the points.
type layers struct{ lines, halos, bars, marks []plot.Plotter }

// add adds a series to each layer, and to what the panel knows of its series.
func (l *layers) add(p *panel, name string, look look, way plotter.XYs, points summaries) {
	l.lines = append(l.lines, line(look.line, way))
	l.halos = append(l.halos, halos(points.means()))
	l.bars = append(l.bars, points.bars(look))
	l.marks = append(l.marks, scatter(look.glyph, points.means()))
	p.add(series{name: name, look: look, way: way, points: points})
}

// addSeeds adds a dot for each seed of a point, at x.
func (l *layers) addSeeds(look look, x float64, accuracies []float64) {
	dot := draw.GlyphStyle{Color: blend(look.line.Color, 0.6), Radius: 0.8, Shape: draw.CircleGlyph{}}
	for _, a := range accuracies {
		l.bars = append(l.bars, scatter(dot, plotter.XYs{{X: x, Y: a}}))
	}
}

// addTo adds the layers to a panel.
func (l *layers) addTo(p *panel) { p.Add(slices.Concat(l.lines, l.halos, l.bars, l.marks)...) }
