package plots

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"html"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"codeberg.org/go-pdf/fpdf"
	xfont "golang.org/x/image/font"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"golang.org/x/text/encoding/charmap"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/recorder"
	"gonum.org/v1/plot/vg/vgeps"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgpdf"
	"gonum.org/v1/plot/vg/vgsvg"
	"gonum.org/v1/plot/vg/vgtex"
)

// pngDPI is the resolution of PNG output in dots per inch.
const pngDPI = 300

// canvas is gonum's canvas of one format, with functions that write text and finish the file as the format needs. It
// draws everything scale times as large, and thus also text, which gonum's canvases do not scale in every format.
type canvas struct {
	vg.CanvasWriterTo
	scale   vg.Length
	text    func(vg.Canvas, font.Face, vg.Point, string) error
	subsets map[font.Typeface]*sfnt.Font // fonts to embed in place of the whole ones, by their names
	finish  func([]byte) []byte
	err     error // the first error of text
}

// FillString draws text with its baseline starting at pt.
func (c *canvas) FillString(face font.Face, pt vg.Point, s string) {
	err := checkGlyphs(face, s)
	if err == nil {
		face.Font.Size *= c.scale
		if subset := c.subsets[font.Typeface(face.Name())]; subset != nil {
			face.Face = subset
		}
		err = c.text(c.CanvasWriterTo, face, pt.Scale(c.scale), s)
	}
	if err != nil && c.err == nil {
		c.err = err
	}
}

// SetLineWidth sets the width of lines.
func (c *canvas) SetLineWidth(w vg.Length) { c.CanvasWriterTo.SetLineWidth(w * c.scale) }

// SetLineDash sets the dashes of lines.
func (c *canvas) SetLineDash(pattern []vg.Length, offset vg.Length) {
	scaled := make([]vg.Length, len(pattern))
	for i, length := range pattern {
		scaled[i] = length * c.scale
	}
	c.CanvasWriterTo.SetLineDash(scaled, offset*c.scale)
}

// Translate moves the origin.
func (c *canvas) Translate(pt vg.Point) { c.CanvasWriterTo.Translate(pt.Scale(c.scale)) }

// Stroke draws a line.
func (c *canvas) Stroke(path vg.Path) { c.CanvasWriterTo.Stroke(c.scaled(path)) }

// Fill fills a shape.
func (c *canvas) Fill(path vg.Path) { c.CanvasWriterTo.Fill(c.scaled(path)) }

func (c *canvas) scaled(path vg.Path) vg.Path {
	if c.scale == 1 {
		return path
	}
	path = slices.Clone(path)
	for i := range path {
		path[i].Pos = path[i].Pos.Scale(c.scale)
		path[i].Radius *= c.scale
		path[i].Control = slices.Clone(path[i].Control)
		for k, control := range path[i].Control {
			path[i].Control[k] = control.Scale(c.scale)
		}
	}
	return path
}

// checkGlyphs refuses text with a character that the font lacks: a figure would have an empty box in its place, or
// nothing at all.
func checkGlyphs(face font.Face, s string) error {
	var buf sfnt.Buffer
	for _, r := range s {
		if glyph, err := face.Face.GlyphIndex(&buf, r); err != nil || glyph == 0 || !unicode.IsGraphic(r) {
			return fmt.Errorf("text %q: the font of figures has no character %q (%U): leave it out", s, r, r)
		}
	}
	return nil
}

func (c *canvas) write(w io.Writer) error {
	if c.err != nil {
		return c.err
	}
	var b bytes.Buffer
	if _, err := c.CanvasWriterTo.WriteTo(&b); err != nil {
		return err
	}
	_, err := w.Write(c.finish(b.Bytes()))
	return err
}

// newCanvas returns the canvas of one of the drawing Formats, for a figure with these texts.
func newCanvas(format string, w, h vg.Length, o Options, texts []*recorder.FillString) *canvas {
	date := o.Date
	if date.IsZero() {
		date = time.Unix(0, 0)
	}
	date = date.UTC()
	c := &canvas{scale: o.scale(), text: plainText, finish: func(b []byte) []byte { return b }}
	switch format {
	case "pdf":
		c.CanvasWriterTo = newPDF(w, h, date)
		c.text, c.subsets = cp1252Text, subsetsFor(texts)
	case "svg":
		c.CanvasWriterTo = vgsvg.NewWith(vgsvg.UseWH(w, h), vgsvg.EmbedFonts(!o.Outlines))
		c.finish = func(b []byte) []byte { return withDescription(b, o) }
		if c.text = outlineText; !o.Outlines {
			c.text, c.subsets = plainText, subsetsFor(texts)
		}
	case "png":
		c.CanvasWriterTo = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(pngDPI))}
		c.finish = withResolution
	case "eps":
		c.CanvasWriterTo = vgeps.New(w, h)
		c.text = outlineText
		c.finish = func(b []byte) []byte { return withEPSHeader(b, w, h, date) }
	case "tex", "pgf":
		if c.CanvasWriterTo = vgtex.NewDocument(w, h); format == "pgf" {
			c.CanvasWriterTo = vgtex.New(w, h)
		}
		c.text = texText
		c.finish = func(b []byte) []byte { return append([]byte("% "+o.comment()+"\n"), b...) }
	default:
		panic("plots: no canvas for " + format)
	}
	return c
}

func plainText(c vg.Canvas, face font.Face, pt vg.Point, s string) error {
	c.FillString(face, pt, s)
	return nil
}

// fpdf takes dates from package variables when a document is made.
var pdfMu sync.Mutex

func newPDF(w, h vg.Length, date time.Time) *vgpdf.Canvas {
	pdfMu.Lock()
	defer pdfMu.Unlock()
	fpdf.SetDefaultCreationDate(date)
	fpdf.SetDefaultModificationDate(date)
	fpdf.SetDefaultCatalogSort(true)
	defer func() {
		fpdf.SetDefaultCreationDate(time.Time{})
		fpdf.SetDefaultModificationDate(time.Time{})
		fpdf.SetDefaultCatalogSort(false)
	}()
	return vgpdf.New(w, h)
}

// withDescription adds what screen readers and browsers say of an SVG figure.
func withDescription(b []byte, o Options) []byte {
	var text bytes.Buffer
	for _, e := range []struct{ name, text string }{{"title", cmp.Or(o.Name, o.Title)}, {"desc", o.Description}} {
		if e.text != "" {
			fmt.Fprintf(&text, "<%s>%s</%[1]s>\n", e.name, html.EscapeString(e.text))
		}
	}
	const start = `xmlns:xlink="http://www.w3.org/1999/xlink">` + "\n" // of gonum's element svg
	if !bytes.Contains(b, []byte(start)) {
		panic("plots: vgsvg wrote no header")
	}
	return bytes.Replace(b, []byte(start), append([]byte(start), text.Bytes()...), 1)
}

// cp1252Text writes text to PDF: vgpdf embeds its fonts with the code page 1252, but does not convert text, so that
// "±" in UTF-8 would print as "Â±".
func cp1252Text(c vg.Canvas, face font.Face, pt vg.Point, s string) error {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		code, ok := charmap.Windows1252.EncodeRune(r)
		if !ok {
			return fmt.Errorf("text %q: PDF figures cannot show %q (%U): leave it out, or save as svg, png or eps",
				s, r, r)
		}
		b = append(b, code)
	}
	c.FillString(face, pt, string(b))
	return nil
}

// texEscapes escapes what TeX would read as commands, and spells what pdfTeX's default fonts lack.
var texEscapes = strings.NewReplacer(append([]string{
	`\`, `\textbackslash{}`, `%`, `\%`, `_`, `\_`, `&`, `\&`, `#`, `\#`, `$`, `\$`, `{`, `\{`, `}`, `\}`,
	`~`, `\textasciitilde{}`, `^`, `\textasciicircum{}`, `<`, `\textless{}`, `>`, `\textgreater{}`,
	`|`, `\textbar{}`, "--", `-{}-`, "±", `$\pm$`, "×", `$\times$`, "·", `$\cdot$`, "–", `--`, "—", `---`,
	"…", `\ldots{}`, "²", `$^2$`, "³", `$^3$`, "°", `$^\circ$`, "µ", `$\mu$`, "½", `$\frac12$`, "−", `$-$`,
	"≤", `$\le$`, "≥", `$\ge$`, "‘", "`", "’", `'`, "“", "``", "”", `''`,
}, greek()...)...)

// greek spells the Greek letters that TeX has commands for.
func greek() (pairs []string) {
	const letters = "α alpha β beta γ gamma δ delta ε varepsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu " +
		"ν nu ξ xi π pi ρ rho σ sigma τ tau υ upsilon φ varphi χ chi ψ psi ω omega " +
		"Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Υ Upsilon Φ Phi Ψ Psi Ω Omega"
	for i, word := range strings.Fields(letters) {
		if i%2 == 1 {
			word = `$\` + word + `$`
		}
		pairs = append(pairs, word)
	}
	return pairs
}

// texEscape is text as TeX reads it. It returns an error if TeX's usual fonts lack a character.
func texEscape(s string) (string, error) {
	escaped := texEscapes.Replace(s)
	for _, r := range escaped {
		letter := r >= 'À' && r <= 'ÿ' && !strings.ContainsRune("ÐðÞþ", r) // those that any TeX builds with accents
		if r > unicode.MaxASCII && !letter || !unicode.IsGraphic(r) {
			return "", fmt.Errorf("text %q: TeX figures cannot show %q (%U): leave it out, or save as pdf, svg, png or eps",
				s, r, r)
		}
	}
	return escaped, nil
}

// texText writes text to TeX, escaped: vgtex writes strings as they are.
func texText(c vg.Canvas, face font.Face, pt vg.Point, s string) error {
	escaped, err := texEscape(s)
	if err != nil {
		return err
	}
	if face.Font.Variant == typefaces[Sans].small.Font.Variant {
		escaped = `\textsf{` + escaped + `}`
	}
	// The document's font may be wider than the one that the figure was measured with: the text is then made smaller, or
	// it would cover what stands beside it.
	width := face.Width(s)
	fitted := fmt.Sprintf(`\resizebox{\ifdim\width>%.2[1]fpt %.2[1]fpt\else\width\fi}{!}{%[2]s}`, width, escaped)
	// vgtex centres text at pt plus half the width of the string, but the string is longer than the text.
	pt.X += (width - face.Width(fitted)) / 2
	c.FillString(face, pt, fitted)
	return nil
}

// outlineText draws text as filled outlines. EPS always needs it: vgeps neither embeds fonts nor encodes or escapes
// strings.
func outlineText(c vg.Canvas, face font.Face, pt vg.Point, s string) error {
	var (
		buf  sfnt.Buffer
		em   = fixed.Int26_6(face.Face.UnitsPerEm()) // glyphs come in font units
		unit = face.Font.Size / vg.Length(em)
		prev sfnt.GlyphIndex
	)
	for i, r := range s {
		glyph, err := face.Face.GlyphIndex(&buf, r)
		advance, err2 := face.Face.GlyphAdvance(&buf, glyph, em, xfont.HintingNone)
		if i > 0 {
			if kern, err := face.Face.Kern(&buf, prev, glyph, em, xfont.HintingNone); err == nil {
				pt.X += vg.Length(kern) * unit
			}
		}
		segments, err3 := face.Face.LoadGlyph(&buf, glyph, em, nil) // valid until buf is used again
		if err := cmp.Or(err, err2, err3); err != nil {
			return fmt.Errorf("text %q: %w", s, err)
		}
		if path := outline(segments, pt, unit); len(path) > 0 {
			c.Fill(path)
		}
		pt.X += vg.Length(advance) * unit
		prev = glyph
	}
	return nil
}

// outline returns a glyph as a path with its origin at pt; unit is the length of a font unit.
func outline(segments sfnt.Segments, pt vg.Point, unit vg.Length) vg.Path {
	var path vg.Path
	var at vg.Point
	point := func(p fixed.Point26_6) vg.Point { // y of a glyph points down
		return vg.Point{X: pt.X + vg.Length(p.X)*unit, Y: pt.Y - vg.Length(p.Y)*unit}
	}
	for _, s := range segments {
		a, b, c := point(s.Args[0]), point(s.Args[1]), point(s.Args[2])
		switch s.Op {
		case sfnt.SegmentOpMoveTo:
			if len(path) > 0 {
				path.Close()
			}
			path.Move(a)
			at = a
		case sfnt.SegmentOpLineTo:
			path.Line(a)
			at = a
		case sfnt.SegmentOpQuadTo:
			// As a cubic, because vgeps draws quadratic curves wrongly.
			third := func(from, to vg.Point) vg.Point { return from.Add(to.Sub(from).Scale(2. / 3)) }
			path.CubeTo(third(at, a), third(b, a), b)
			at = b
		case sfnt.SegmentOpCubeTo:
			path.CubeTo(a, b, c)
			at = c
		}
	}
	if len(path) > 0 {
		path.Close()
	}
	return path
}

// withEPSHeader replaces vgeps's header, which starts with "%%!PS", which no reader knows, and holds the time of day.
func withEPSHeader(b []byte, w, h vg.Length, date time.Time) []byte {
	const end = "%%EndComments\n"
	_, body, ok := bytes.Cut(b, []byte(end))
	if !ok {
		panic("plots: vgeps wrote no header")
	}
	header := fmt.Sprintf("%%!PS-Adobe-3.0 EPSF-3.0\n%%%%Creator: igcsearch\n%%%%CreationDate: %s\n"+
		"%%%%BoundingBox: 0 0 %.0f %.0f\n%%%%HiResBoundingBox: 0 0 %.4f %.4f\n%s",
		date.Format(time.RFC3339), math.Ceil(w.Points()), math.Ceil(h.Points()), w.Points(), h.Points(), end)
	return append([]byte(header), body...)
}

// withResolution adds a pHYs chunk, so that programs show a PNG at its size in inches.
func withResolution(b []byte) []byte {
	const afterIHDR = 8 + 12 + 13 // signature, chunk frame, IHDR
	perMetre := uint32(math.Round(pngDPI / 0.0254))
	chunk := append(binary.BigEndian.AppendUint32(nil, 9), "pHYs"...)
	chunk = binary.BigEndian.AppendUint32(chunk, perMetre)
	chunk = binary.BigEndian.AppendUint32(chunk, perMetre)
	chunk = append(chunk, 1) // the unit is the metre
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
	return append(append(b[:afterIHDR:afterIHDR], chunk...), b[afterIHDR:]...)
}
