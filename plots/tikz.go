package plots

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// A TikZ figure is two files: code for pgfplots, which an author \inputs and may change, and a table of the numbers that
// it draws. The table has a few columns for each series, named by the number of the panel and of the series: x1-2, y1-2
// are the points of the second series of the first panel, minus1-2 and plus1-2 the lengths of their error bars, linex1-2
// and liney1-2 the line, bandx1-2 and bandy1-2 the outline of the area. Columns that are shorter than others end in nan,
// which pgfplots leaves out.

// tikz is a figure as code and columns.
type tikz struct {
	code    bytes.Buffer
	width   vg.Length // of the figure
	columns []tikzColumn
	err     error // the first error of a text
}

type tikzColumn struct {
	name   string
	values []float64
}

// newTikZ converts the layout of a figure on a page of this size.
func newTikZ(l layout, size vg.Point, o Options) (*tikz, error) {
	t := &tikz{width: size.X}
	rows := len(l.columns[0])
	panels := rows * len(l.columns)
	for _, p := range slices.Concat(l.columns...) {
		if len(p.series) == 0 || p.right != nil {
			return nil, errors.New("TikZ figures have neither a heat map nor a second axis: save as pgf, or as pdf, svg," +
				" png or eps")
		}
	}
	library := ""
	if panels > 1 {
		library = "\\usepgfplotslibrary{groupplots}"
	}
	fmt.Fprintf(&t.code, "%% %s\n%% needs \\usepackage{pgfplots}\\pgfplotsset{compat=1.16}%s in the document,\n%% and %s"+
		" in its folder or in TEXINPUTS\n\\begin{tikzpicture}\n", o.comment(), library, o.dataName())
	t.colors(l)
	if panels > 1 {
		fmt.Fprintf(&t.code, "\\begin{groupplot}[group style={group size=%d by %d,horizontal sep=36pt,vertical sep=20pt}]\n",
			len(l.columns), rows)
	}
	frame := vg.Point{X: size.X / vg.Length(len(l.columns)), Y: size.Y / vg.Length(rows)}
	number := 0
	for row := range rows { // groupplot goes row by row
		for _, column := range l.columns {
			number++
			t.panel(column[row], frame, number, panels, o)
			if number == panels {
				t.legend(l.legend, column[row], o)
			}
		}
	}
	end := "axis"
	if panels > 1 {
		end = "groupplot"
	}
	fmt.Fprintf(&t.code, "\\end{%s}\n", end)
	if o.Title != "" && panels > 1 {
		fmt.Fprintf(&t.code, "\\node[above,font=\\small] at (current bounding box.north) {%s};\n", t.text(o.Title, o.Font))
	}
	t.code.WriteString("\\end{tikzpicture}\n")
	return t, t.err
}

// comment says in a comment of TeX what the figure shows.
func (o Options) comment() string {
	text := strings.Join(strings.Fields(cmp.Or(o.Name, o.Title)+": "+o.Description), " ")
	return cmp.Or(strings.Trim(text, ": "), "a figure of igcsearch")
}

func (o Options) dataName() string { return cmp.Or(o.Data, "figure.dat") }

// text is text as TeX reads it.
func (t *tikz) text(s string, font Font) string {
	escaped, err := texEscape(s)
	if t.err == nil {
		t.err = err
	}
	if font == Sans {
		escaped = `\textsf{` + escaped + `}`
	}
	return escaped
}

// broken is the label of an axis of this length, broken into lines.
func (t *tikz) broken(p *panel, label string, length vg.Length, o Options) string {
	lines := strings.Split(p.wrap(label, 0.7*length), "\n")
	for i := range lines {
		lines[i] = t.text(lines[i], o.Font)
	}
	return strings.Join(lines, `\\`)
}

// colors defines the colours of the lines and markers.
func (t *tikz) colors(l layout) {
	seen := map[color.RGBA]bool{}
	for _, p := range slices.Concat(l.columns...) {
		for _, s := range p.series {
			for _, c := range []color.Color{s.look.line.Color, s.look.glyph.Color} {
				if c == nil {
					continue
				}
				if rgb := color.RGBAModel.Convert(c).(color.RGBA); !seen[rgb] {
					seen[rgb] = true
					fmt.Fprintf(&t.code, "\\definecolor{%s}{RGB}{%d,%d,%d}\n", tikzColor(c), rgb.R, rgb.G, rgb.B)
				}
			}
		}
	}
}

func tikzColor(c color.Color) string {
	rgb := color.RGBAModel.Convert(c).(color.RGBA)
	return fmt.Sprintf("igc%02x%02x%02x", rgb.R, rgb.G, rgb.B)
}

// panel writes the axes and series of a panel, without the end of its environment.
func (t *tikz) panel(p *panel, size vg.Point, number, panels int, o Options) {
	from := p.fromX()
	begin := "\\begin{axis}["
	if panels > 1 {
		begin = "\\nextgroupplot["
	}
	family := ""
	if o.Font == Sans {
		family = "\\sffamily"
	}
	legend := "legend pos=outer north east"
	if size.X < t.width {
		legend = "legend columns=-1,legend style={at={(0.5,1.2)},anchor=south}" // above the panel
	}
	options := []string{
		fmt.Sprintf("width=%.2fin,height=%.2fin,scale only axis=false", size.X/vg.Inch, size.Y/vg.Inch),
		fmt.Sprintf("xlabel={%s},ylabel={%s}", t.broken(p, p.xLabel, size.X, o), t.broken(p, p.yLabel, size.Y, o)),
		fmt.Sprintf("xmin=%s,xmax=%s,ymin=%s,ymax=%s", short(from(p.X.Min)), short(from(p.X.Max)), short(p.Y.Min),
			short(p.Y.Max)),
		"axis lines=left,axis line style={-},legend style={draw=none,font=\\scriptsize},legend cell align=left",
		"label style={font=\\small,align=center},tick label style={font=" + family + "\\scriptsize,align=center}", legend,
	}
	title := p.title
	if panels == 1 {
		title = o.Title
	}
	if title != "" {
		options = append(options, fmt.Sprintf("title={%s},title style={font=\\small}", t.text(title, o.Font)))
	}
	if ticks := t.ticks(p, o); ticks != "" {
		options = append(options, ticks)
	}
	fmt.Fprintf(&t.code, "%s\n  %s]\n", begin, strings.Join(options, ",\n  "))
	for i, s := range p.series {
		t.series(s, fmt.Sprintf("%d-%d", number, i+1), from, o)
	}
	if p.names != nil {
		for _, name := range p.names.names {
			fmt.Fprintf(&t.code, "\\node[anchor=south west,font=\\tiny] at (axis cs:%s,%s) {%s};\n", short(from(name.at.X)),
				short(name.at.Y), t.text(name.text, o.Font))
		}
	}
}

// fromX returns the inverse of toX.
func (p *panel) fromX() func(float64) float64 {
	switch {
	case p.toX == nil || p.toX(8) == 8:
		return func(x float64) float64 { return x }
	case p.toX(8) == 3:
		return math.Exp2
	}
	return func(x float64) float64 { return math.Pow(10, x) }
}

// ticks are the options of the horizontal axis: the M with their L, or a logarithmic scale.
func (t *tikz) ticks(p *panel, o Options) string {
	if p.toX == nil || p.toX(8) == 8 {
		return ""
	}
	labels, ok := p.X.Tick.Marker.(*partitionLabels)
	if !ok {
		return "xmode=log,log ticks with fixed point"
	}
	var at, texts []string
	for _, m := range labels.ms {
		at = append(at, strconv.Itoa(m))
		var lines []string
		for _, text := range labels.texts(m) {
			lines = append(lines, t.text(text, o.Font))
		}
		texts = append(texts, "{"+strings.Join(lines, `\\`)+"}")
	}
	return fmt.Sprintf("xmode=log,log basis x=2,minor tick style={draw=none},xtick={%s},\n  xticklabels={%s}",
		strings.Join(at, ","), strings.Join(texts, ","))
}

// series writes the area, the line and the points of a series.
func (t *tikz) series(s series, key string, from func(float64) float64, o Options) {
	style := "color=" + tikzColor(s.look.line.Color)
	dashed := style
	if len(s.look.line.Dashes) > 0 {
		var pattern []string
		for i, length := range s.look.line.Dashes {
			pattern = append(pattern, []string{"on", "off"}[i%2]+" "+short(float64(length))+"pt")
		}
		dashed += ",dash pattern=" + strings.Join(pattern, " ")
	}
	dashed += fmt.Sprintf(",line width=%spt", short(float64(s.look.line.Width)))
	data := o.dataName()
	if len(s.band) > 1 {
		var xys plotter.XYs
		for _, p := range s.band {
			xys = append(xys, plotter.XY{X: p.x, Y: p.high})
		}
		for _, p := range slices.Backward(s.band) {
			xys = append(xys, plotter.XY{X: p.x, Y: p.low})
		}
		t.column("bandx"+key, "bandy"+key, xys, from)
		fmt.Fprintf(&t.code, "\\addplot[forget plot,draw=%[1]s!45,fill=%[1]s,fill opacity=0.22,line width=0.3pt]"+
			" table[x=bandx%[2]s,y=bandy%[2]s] {%[3]s} -- cycle;\n", tikzColor(s.look.line.Color), key, data)
	}
	if len(s.way) > 0 {
		steps := ""
		if s.steps {
			steps = ",const plot"
		}
		t.column("linex"+key, "liney"+key, s.way, from)
		fmt.Fprintf(&t.code, "\\addplot[forget plot,no marks,%s%s] table[x=linex%s,y=liney%[3]s] {%[4]s};\n", dashed, steps,
			key, data)
	}
	if len(s.points) > 0 {
		var minus, plus []float64
		for _, p := range s.points {
			minus, plus = append(minus, p.mean-p.low), append(plus, p.high-p.mean)
		}
		t.column("x"+key, "y"+key, s.points.means(), from)
		t.columns = append(t.columns, tikzColumn{"minus" + key, minus}, tikzColumn{"plus" + key, plus})
		fmt.Fprintf(&t.code, "\\addplot[forget plot,only marks,%s,mark size=%spt,color=%s,error bars/.cd,y dir=both,y explicit]\n"+
			"  table[x=x%s,y=y%[4]s,y error minus=minus%[4]s,y error plus=plus%[4]s] {%[5]s};\n", s.look.mark,
			short(float64(markerSize)), tikzColor(s.look.glyph.Color), key, data)
	}
	if s.name != "" {
		mark := "no marks"
		if len(s.points) > 0 {
			mark = s.look.mark
		}
		fmt.Fprintf(&t.code, "\\addlegendimage{%s,%s}\\addlegendentry{%s}\n", dashed, mark, t.text(s.name, o.Font))
	}
}

// legend writes what points and bars are.
func (t *tikz) legend(l legend, p *panel, o Options) {
	note := l.note
	named := func(s series) bool { return s.name != "" && len(s.points) > 0 }
	if note == "" && len(l.entries) > 0 && !slices.ContainsFunc(p.series, named) {
		note = l.entries[0].text // see foldNote
	}
	if note != "" && !slices.ContainsFunc(p.series, func(s series) bool { return s.name == note }) {
		fmt.Fprintf(&t.code, "\\addlegendimage{empty legend}\\addlegendentry{%s}\n", t.text(note, o.Font))
	}
}

func (t *tikz) column(xName, yName string, xys plotter.XYs, from func(float64) float64) {
	x, y := tikzColumn{name: xName}, tikzColumn{name: yName}
	for _, xy := range xys {
		x.values, y.values = append(x.values, from(xy.X)), append(y.values, xy.Y)
	}
	t.columns = append(t.columns, x, y)
}

// short is a number with as many digits as a figure can show.
func short(v float64) string { return strconv.FormatFloat(v, 'f', -1, 32) }

// writeData writes the table.
func (t *tikz) writeData(w io.Writer) error {
	var b strings.Builder
	rows := 0
	for i, c := range t.columns {
		b.WriteString(strings.Repeat(" ", min(i, 1)) + c.name)
		rows = max(rows, len(c.values))
	}
	b.WriteString("\n")
	for row := range rows {
		for i, c := range t.columns {
			text := "nan"
			if row < len(c.values) {
				text = number(c.values[row])
			}
			b.WriteString(strings.Repeat(" ", min(i, 1)) + text)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
