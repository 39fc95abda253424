package plots

import (
	"image/color"
	"math"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/font/liberation"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

var (
	white = color.RGBA{255, 255, 255, 255}
	black = color.RGBA{0, 0, 0, 255}
	grey  = color.RGBA{110, 110, 110, 255}
)

// palette is Okabe and Ito's, the best told apart first; yellow, hard to see
// as a line on paper, last.
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

// Markers as corners on the unit circle, in sixteenths of a turn from the top;
// the circle has none. The lengths of palette, dashes and markers share no
// divisor, so that looks repeat after 8·5·7 series only.
var markers = [...][]float64{
	nil,                       // circle
	{2, 6, 10, 14},            // square
	{0, 16. / 3, 32. / 3},     // triangle
	{0, 4, 8, 12},             // diamond
	{8, 8 + 16./3, 8 + 32./3}, // triangle, point down
	{0, 3.2, 6.4, 9.6, 12.8},  // pentagon
	{4, 4 + 16./3, 4 + 32./3}, // triangle, point sideways
}

// look is how a series is told apart.
type look struct {
	color  color.RGBA
	dashes []vg.Length
	marker []float64
}

// lookOf gives series i its look.
func lookOf(i int) look {
	return look{palette[i%len(palette)], dashes[i%len(dashes)], markers[i%len(markers)]}
}

const (
	lineWidth   vg.Length = 0.9
	markerSize  vg.Length = 1.8 // radius of the circle
	capWidth    vg.Length = 3   // of an error bar, whole
	axisWidth   vg.Length = 0.5
	tickLength  vg.Length = 2.5
	smallMargin vg.Length = 2 // between the page's edge and what stands there
	topMargin   vg.Length = 4 // above the frame, half a tick label at least
)

// blend is c with the given opacity over white, as an opaque colour.
func blend(c color.RGBA, opacity float64) color.RGBA {
	mix := func(v uint8) uint8 { return uint8(math.Round(255 - opacity*(255-float64(v)))) }
	return color.RGBA{mix(c.R), mix(c.G), mix(c.B), 255}
}

func rectangle(r vg.Rectangle) []vg.Point {
	return []vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}}
}

func fill(c draw.Canvas, clr color.Color, corners []vg.Point) { c.FillPolygon(clr, corners) }

// stroke draws a line of one point or more.
func stroke(c draw.Canvas, clr color.Color, width vg.Length, dashes []vg.Length, points ...vg.Point) {
	c.StrokeLines(draw.LineStyle{Color: clr, Width: width, Dashes: dashes}, points)
}

// mark draws a marker.
func mark(c draw.Canvas, l look, at vg.Point, radius vg.Length) {
	c.SetColor(l.color)
	c.Fill(markerPath(l.marker, at, radius))
}

// halo draws the thin white edge of a marker, which parts it from the lines
// underneath. Error bars are drawn over it, or it would cut the short ones.
func halo(c draw.Canvas, l look, at vg.Point, radius vg.Length) {
	c.SetColor(white)
	c.Fill(markerPath(l.marker, at, radius+0.5))
}

// markerPath has about the area of the circle, whatever the shape.
func markerPath(corners []float64, at vg.Point, r vg.Length) vg.Path {
	var p vg.Path
	if corners == nil {
		const k = 0.5522847498 // cubic Bézier curves for a circle
		p.Move(vg.Point{X: at.X + r, Y: at.Y})
		x, y := vg.Length(1), vg.Length(0)
		for range 4 {
			nx, ny := -y, x
			p.CubeTo(
				vg.Point{X: at.X + r*(x+k*nx), Y: at.Y + r*(y+k*ny)},
				vg.Point{X: at.X + r*(nx+k*x), Y: at.Y + r*(ny+k*y)},
				vg.Point{X: at.X + r*nx, Y: at.Y + r*ny})
			x, y = nx, ny
		}
		p.Close()
		return p
	}
	n := float64(len(corners))
	r *= vg.Length(math.Sqrt(2 * math.Pi / (n * math.Sin(2*math.Pi/n))))
	for i, corner := range corners {
		sin, cos := math.Sincos(corner * math.Pi / 8)
		pt := vg.Point{X: at.X + r*vg.Length(sin), Y: at.Y + r*vg.Length(cos)}
		if i == 0 {
			p.Move(pt)
		} else {
			p.Line(pt)
		}
	}
	p.Close()
	return p
}

// An own cache: the default one of gonum/plot can be changed by anyone.
var fonts = font.NewCache(liberation.Collection())

var (
	labelFont = serif(8)
	smallFont = serif(7)
)

// serif is the one font of all figures. No italic: it would double the size
// of SVG files, and vgpdf cannot find it.
func serif(size vg.Length) font.Face {
	return fonts.Lookup(font.Font{Typeface: "Liberation", Variant: "Serif"}, size)
}

// Where a text stands relative to its point.
const (
	left   vg.Length = 0
	centre vg.Length = 0.5
	right  vg.Length = 1
)

// capHeight is the height of digits and capitals of Liberation Serif.
func capHeight(f font.Face) vg.Length { return 0.66 * f.Font.Size }

// text writes s with its baseline at pt.Y.
func text(c draw.Canvas, f font.Face, clr color.Color, pt vg.Point, align vg.Length, s string) {
	c.SetColor(clr)
	c.FillString(f, vg.Point{X: pt.X - align*f.Width(s), Y: pt.Y}, s)
}

// verticalText writes s upwards, its baseline at pt.X, its middle at pt.Y.
func verticalText(c draw.Canvas, f font.Face, clr color.Color, pt vg.Point, s string) {
	c.SetColor(clr)
	c.Push()
	c.Rotate(math.Pi / 2)
	c.FillString(f, vg.Point{X: pt.Y - f.Width(s)/2, Y: -pt.X}, s)
	c.Pop()
}
