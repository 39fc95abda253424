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

// places knows what a name must not cover, and what a line to it must not cross.
type places struct {
	frame   vg.Rectangle
	lines   []segment
	markers []vg.Rectangle // of the points that have names
	placed  []placedName
}

// place finds the places of the names in a frame.
func (n *pointNames) place(frame vg.Rectangle, p *plot.Plot) (placed []placedName, missing []string) {
	c := blank(vg.Point{})
	c.Rectangle = frame
	toX, toY := p.Transforms(&c)
	found := places{frame: frame, lines: drawnLines(c, p, n.plotters)}
	var points []vg.Point
	for _, name := range n.names {
		at := vg.Point{X: toX(name.at.X), Y: toY(name.at.Y)}
		half := vg.Point{X: markerSize + 0.5, Y: markerSize + 0.5}
		points = append(points, at)
		found.markers = append(found.markers, vg.Rectangle{Min: at.Sub(half), Max: at.Add(half)})
	}
	for i, name := range n.names {
		if !c.Contains(points[i]) {
			continue // the limits of an axis leave it out
		}
		size := vg.Point{X: n.face.small.Width(name.text), Y: n.face.digits}
		box, ok := found.beside(points[i], size)
		var lead *segment
		if !ok {
			if box, lead = found.away(i, points[i], size); lead == nil {
				missing = append(missing, name.text)
				continue
			}
			found.lines = append(found.lines, *lead)
		}
		found.placed = append(found.placed, placedName{name, box, lead})
		found.lines = append(found.lines, segment{box.Min, box.Max}, segment{
			vg.Point{X: box.Min.X, Y: box.Max.Y}, vg.Point{X: box.Max.X, Y: box.Min.Y}})
	}
	return found.placed, missing
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
func (f *places) isFree(box vg.Rectangle) bool {
	inside := box.Min.X > f.frame.Min.X+1 && box.Max.X < f.frame.Max.X &&
		box.Min.Y > f.frame.Min.Y+1 && box.Max.Y < f.frame.Max.Y
	margin := vg.Point{X: 1.5, Y: 1}
	return inside && !crossesAny(vg.Rectangle{Min: box.Min.Sub(margin), Max: box.Max.Add(margin)}, f.lines)
}

// beside returns the box for a text of this size beside a point: the nearest that is free.
func (f *places) beside(pt, size vg.Point) (vg.Rectangle, bool) {
	for _, gap := range []vg.Length{4, 6, 10} {
		right, left, middle := pt.X+gap, pt.X-gap-size.X, pt.X-size.X/2
		over, under, beside := pt.Y+gap-1, pt.Y-gap+1-size.Y, pt.Y-size.Y/2
		for _, at := range []vg.Point{
			{X: right, Y: over}, {X: left, Y: over}, {X: right, Y: under}, {X: left, Y: under},
			{X: right, Y: beside}, {X: left, Y: beside}, {X: middle, Y: over + 1}, {X: middle, Y: under - 1},
		} {
			if box := (vg.Rectangle{Min: at, Max: at.Add(size)}); f.isFree(box) {
				return box, true
			}
		}
	}
	return vg.Rectangle{}, false
}

// away returns the box for a text of this size further away from point i, and the line that leads there, which crosses no
// name and no other point. The line is nil if there is no such place.
func (f *places) away(i int, pt, size vg.Point) (box vg.Rectangle, lead *segment) {
	const directions = 32
	for radius := vg.Length(14); radius <= 50; radius += 4 {
		for k := range directions {
			sin, cos := math.Sincos(2 * math.Pi * float64(k) / directions)
			toward := vg.Point{X: vg.Length(cos), Y: vg.Length(sin)}
			line := segment{pt.Add(toward.Scale(markerSize + 1)), pt.Add(toward.Scale(radius))}
			// The line ends at the middle of the side of the text that looks to the point.
			corner := line.to.Add(vg.Point{X: 1.5, Y: -size.Y / 2})
			switch {
			case sin > 0.95:
				corner = line.to.Add(vg.Point{X: -size.X / 2, Y: 1.5})
			case sin < -0.95:
				corner = line.to.Add(vg.Point{X: -size.X / 2, Y: -size.Y - 1.5})
			case cos < 0:
				corner.X = line.to.X - size.X - 1.5
			}
			box = vg.Rectangle{Min: corner, Max: corner.Add(size)}
			if f.isFree(box) && !f.crosses(line, i) {
				return box, &line
			}
		}
	}
	return vg.Rectangle{}, nil
}

// crosses reports whether a line from point i crosses another point or a name.
func (f *places) crosses(line segment, i int) bool {
	for k, marker := range f.markers {
		if k != i && line.crosses(marker) {
			return true
		}
	}
	return slices.ContainsFunc(f.placed, func(name placedName) bool { return line.crosses(name.box) })
}
