package plots

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// pointName is a text beside a point.
type pointName struct {
	text  string
	at    plotter.XY
	color color.Color
}

// pointNames is a plotter of names. Each takes the first free place around its point, or a free place further away, to
// which a thin line leads. Those for which there is none are not drawn; missing says which.
type pointNames struct {
	face     *typeface
	names    []pointName
	plotters []plot.Plotter // what a name must not cover
}

// nameBeside adds names of points that are drawn already. The first ones find their place first.
func (p *panel) nameBeside(names []pointName) {
	p.names = &pointNames{p.face, names, p.plotters}
	p.Add(p.names)
}

// placedName is a name with its place. A line leads there from the point if it stands far away.
type placedName struct {
	pointName
	box  vg.Rectangle
	lead *segment
}

// place finds the places of the names in a frame.
func (n *pointNames) place(frame vg.Rectangle, p *plot.Plot) (placed []placedName, missing []string) {
	c := blank(vg.Point{})
	c.Rectangle = frame
	lines := drawnLines(c, p, n.plotters)
	toX, toY := p.Transforms(&c)
	var points []vg.Rectangle // the markers, which no line to a name may cross
	for _, name := range n.names {
		at := vg.Point{X: toX(name.at.X), Y: toY(name.at.Y)}
		points = append(points, around(at, markerSize+0.5))
	}
	for i, name := range n.names {
		at := vg.Point{X: toX(name.at.X), Y: toY(name.at.Y)}
		if !c.Contains(at) {
			continue // the limits of an axis leave it out
		}
		size := vg.Point{X: n.face.small.Width(name.text), Y: n.face.digits}
		found := placedName{pointName: name}
		var ok bool
		if found.box, ok = freePlace(frame, at, size, lines); !ok {
			if found.box, found.lead, ok = farPlace(frame, at, size, lines, points, i, placed); !ok {
				missing = append(missing, name.text)
				continue
			}
			lines = append(lines, *found.lead)
		}
		placed = append(placed, found)
		box := found.box
		lines = append(lines, segment{box.Min, box.Max}, segment{
			vg.Point{X: box.Min.X, Y: box.Max.Y}, vg.Point{X: box.Max.X, Y: box.Min.Y}})
	}
	return placed, missing
}

func around(at vg.Point, half vg.Length) vg.Rectangle {
	d := vg.Point{X: half, Y: half}
	return vg.Rectangle{Min: at.Sub(d), Max: at.Add(d)}
}

// Plot draws the names.
func (n *pointNames) Plot(c draw.Canvas, p *plot.Plot) {
	placed, _ := n.place(c.Rectangle, p)
	for _, name := range placed {
		if name.lead != nil {
			style := draw.LineStyle{Color: grey, Width: 0.35}
			c.StrokeLine2(style, name.lead.from.X, name.lead.from.Y, name.lead.to.X, name.lead.to.Y)
		}
		write(c, styled(n.face.small, name.color, draw.XLeft, draw.YBottom), name.box.Min, name.text)
	}
}

// isFree reports whether a text stays in the frame and touches no line.
func isFree(frame, box vg.Rectangle, lines []segment) bool {
	inside := box.Min.X > frame.Min.X+1 && box.Max.X < frame.Max.X && box.Min.Y > frame.Min.Y+1 && box.Max.Y < frame.Max.Y
	margin := vg.Point{X: 1.5, Y: 1}
	return inside && !crossesAny(vg.Rectangle{Min: box.Min.Sub(margin), Max: box.Max.Add(margin)}, lines)
}

// freePlace returns the box for a text of this size beside a point: the nearest that is free.
func freePlace(frame vg.Rectangle, pt, size vg.Point, lines []segment) (vg.Rectangle, bool) {
	for _, gap := range []vg.Length{4, 6, 10} {
		right, left, middle := pt.X+gap, pt.X-gap-size.X, pt.X-size.X/2
		over, under, beside := pt.Y+gap-1, pt.Y-gap+1-size.Y, pt.Y-size.Y/2
		for _, at := range []vg.Point{
			{X: right, Y: over}, {X: left, Y: over}, {X: right, Y: under}, {X: left, Y: under},
			{X: right, Y: beside}, {X: left, Y: beside}, {X: middle, Y: over + 1}, {X: middle, Y: under - 1},
		} {
			if box := (vg.Rectangle{Min: at, Max: at.Add(size)}); isFree(frame, box, lines) {
				return box, true
			}
		}
	}
	return vg.Rectangle{}, false
}

// farPlace returns the box for a text of this size further away from a point, and the line that leads there, which
// crosses no name and no other point.
func farPlace(frame vg.Rectangle, pt, size vg.Point, lines []segment, points []vg.Rectangle, self int,
	placed []placedName) (vg.Rectangle, *segment, bool) {
	const directions = 32
	for radius := vg.Length(14); radius <= 50; radius += 4 {
		for k := range directions {
			sin, cos := math.Sincos(2 * math.Pi * float64(k) / directions)
			// The end of the line is the middle of the side of the text that looks to the point.
			end := pt.Add(vg.Point{X: radius * vg.Length(cos), Y: radius * vg.Length(sin)})
			box := vg.Rectangle{Min: end, Max: end.Add(size)}
			shift := vg.Point{X: 1.5, Y: -size.Y / 2}
			if cos < 0 {
				shift.X = -size.X - 1.5
			}
			if math.Abs(sin) > 0.95 {
				shift = vg.Point{X: -size.X / 2, Y: 1.5}
				if sin < 0 {
					shift.Y = -size.Y - 1.5
				}
			}
			box.Min, box.Max = box.Min.Add(shift), box.Max.Add(shift)
			if !isFree(frame, box, lines) {
				continue
			}
			from := pt.Add(vg.Point{X: (markerSize + 1) * vg.Length(cos), Y: (markerSize + 1) * vg.Length(sin)})
			lead := segment{from, end}
			crosses := false
			for i, point := range points {
				crosses = crosses || i != self && lead.crosses(point)
			}
			for _, other := range placed {
				crosses = crosses || lead.crosses(other.box)
			}
			if !crosses {
				return box, &lead, true
			}
		}
	}
	return vg.Rectangle{}, nil, false
}
