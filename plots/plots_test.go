package plots_test

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"image/png"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"igcsearch/plots"

	"gonum.org/v1/plot/cmpimg"
)

var update = flag.Bool("update", false, "write the golden pictures")

// The pairs of Table 1 of the paper.
var (
	table1i  = [][2]int{{64, 1}, {40, 2}, {28, 3}, {12, 6}, {6, 9}, {5, 10}, {3, 13}, {2, 16}, {1, 23}}
	table1ii = [][2]int{
		{128, 1}, {85, 2}, {64, 3}, {41, 5}, {28, 7}, {23, 8}, {14, 11}, {12, 12}, {4, 22}, {2, 31}, {1, 44},
	}
)

// series makes up accuracies that are highest at M = 2.
func series(name string, pairs [][2]int, best float64, seeds int) plots.Series {
	s := plots.Series{Name: name}
	for i, pair := range pairs {
		d := math.Log2(float64(pair[1])) - 1
		p := plots.Point{L: pair[0], M: pair[1]}
		for k := range seeds {
			p.Accuracies = append(p.Accuracies, best-1.1*d*d+0.6*math.Sin(float64(7*i+5*k*k)))
		}
		s.Points = append(s.Points, p)
	}
	return s
}

// learning makes up curves for the pairs of Table 1 (i).
func learning(epochs, seeds int) plots.LearningCurves {
	var f plots.LearningCurves
	for i, pair := range table1i {
		c := plots.LearningCurve{Name: fmt.Sprintf("L%dM%d", pair[0], pair[1])}
		for e := 1; e <= epochs; e++ {
			x := float64(e) / float64(epochs)
			epoch := plots.Epoch{Number: e}
			for k := range seeds {
				noise := math.Sin(float64(3*e + 7*k + i))
				epoch.Accuracies = append(epoch.Accuracies, 68-2.5*float64(i)-45*math.Exp(-5*x)+1.2*noise*(1.2-x))
				epoch.Losses = append(epoch.Losses, 1.1+0.08*float64(i)+3*math.Exp(-4*x)+0.05*noise)
				epoch.TrainAccuracies = append(epoch.TrainAccuracies, 84-3*float64(i)-65*math.Exp(-4*x)+0.3*noise)
				epoch.TrainLosses = append(epoch.TrainLosses, 0.5+0.1*float64(i)+3.4*math.Exp(-3*x)+0.01*noise)
			}
			c.Epochs = append(c.Epochs, epoch)
		}
		f.Curves = append(f.Curves, c)
	}
	return f
}

// The series that most figures draw.
var (
	fig3a   = series("fig3a", table1i, 63.9, 5)
	fig3b   = series("fig3b", table1ii, 68, 5)
	plain   = series("", table1i, 63.9, 5)
	plainer = series("no augmentation", table1i, 61.5, 3)
	point   = series("", table1i[:1], 63.9, 1)
)

func vsM(list ...plots.Series) plots.AccuracyVsM { return plots.AccuracyVsM{Series: list} }

// expected returns a series with a band that is narrow at M = 2, around a smooth curve.
func expected(s plots.Series, half float64) plots.Series {
	s.Points = slices.Clone(s.Points)
	highest := 0.
	for _, p := range s.Points {
		highest = max(highest, p.Accuracies[0])
	}
	for i, p := range s.Points {
		d := math.Log2(float64(p.M)) - 1
		e := plots.Expected{Mean: highest - 1.1*d*d}
		e.Low, e.High = e.Mean-half*(1+0.2*d*d), e.Mean+half*(1+0.15*d*d)
		s.Points[i].Expected = &e
	}
	return s
}

func heatMap(rows ...plots.Series) plots.HeatMap { return plots.HeatMap{Rows: rows} }

// figures are drawn in every format. Each has a golden picture of its name, drawn with its options, except those called
// single-….
var figures = map[string]plots.Figure{
	"one-series": vsM(plain),
	"width":      plots.AccuracyVsM{Series: []plots.Series{fig3b}, WidthCurve: true, Bar: plots.CI95},
	"two-series": plots.AccuracyVsM{Series: []plots.Series{fig3a, fig3b}, WidthCurve: true},
	"seeds":      plots.AccuracyVsM{Series: []plots.Series{fig3a, plainer}, Seeds: true},
	"band":       plots.AccuracyVsM{Series: []plots.Series{expected(plain, 0.5)}, Band: plots.Pointwise},
	"bands": plots.AccuracyVsM{Series: []plots.Series{expected(fig3a, 0.5), expected(plainer, 0.9)},
		Band: plots.Simultaneous, Bar: plots.CI95, WidthCurve: true},
	"learning":   learning(40, 5),
	"loss":       func() plots.Figure { f := learning(12, 3); f.Loss = true; return f }(),
	"race":       race(),
	"pareto":     pareto(1),
	"pareto-log": pareto(40),
	"heatmap":    heatMap(series("4672", table1i, 63.9, 5), series("17536", table1ii, 68, 5)),
	"heatmap-few": heatMap(series("4672", table1i[:4], 63.9, 5),
		series("9000", [][2]int{{90, 1}, {60, 2}, {61, 2}}, 66, 2), series("17536", table1ii[:3], 68, 5)),
	"panels": plots.Panels{Panels: []plots.Panel{{Name: "Budget (i)", Figure: vsM(plain)},
		{Name: "Budget (ii)", Figure: vsM(series("", table1ii, 68, 5))}}},
	"panels-same": plots.Panels{SameY: true, Panels: []plots.Panel{
		{Figure: vsM(fig3a, plainer), AccuracyLabel: "accuracy on 10000 test pictures, CIFAR-10 (%)"},
		{Figure: vsM(fig3b), AccuracyLabel: "accuracy on 26032 test pictures, SVHN (%)"}}},
	"edf":            edf(),
	"size":           sizes(),
	"pareto-crowded": crowded(14),
	"pareto-full":    crowded(50),
	"single-race": plots.RaceHistory{Networks: []plots.RaceNetwork{{Name: "a", Accuracies: []float64{60}},
		{Name: "b"}}},
	"single-cost":  plots.Pareto{Points: []plots.CostPoint{{Name: "a", Cost: 3, Accuracies: []float64{60}}}},
	"single-cell":  heatMap(series("4672", table1i[:1], 63.9, 1)),
	"single-point": plots.AccuracyVsM{Series: []plots.Series{point}, WidthCurve: true, Seeds: true},
}

// optionsOf are the options of figures; the others have none.
var optionsOf = map[string]plots.Options{
	"seeds": {Title: "synthetic", AccuracyLabel: "test accuracy, CIFAR-100 (20 superclasses) (%)"},
	"band":  {Font: plots.Sans, TextSize: 9, Width: 3.5},
	"race":  {Font: plots.Sans},
	"width": {X: plots.Limits{Low: 2, High: math.NaN()}, Y: plots.Limits{Low: 64, High: 69}},
	"edf":   {AccuracyLabel: "accuracy on 10000 test pictures (%)"},
	"size":  {AccuracyLabel: "accuracy on 10000 test pictures, CIFAR-100 (%)"},
}

// edf makes up two design spaces.
func edf() plots.EDF {
	var f plots.EDF
	for i, pairs := range [][][2]int{table1i, table1ii} {
		space := plots.DesignSpace{Name: []string{"Budget (i)", "Budget (ii)"}[i]}
		for _, p := range series("", pairs, 63.9+4*float64(i), 3).Points {
			space.Networks = append(space.Networks, plots.SpaceNetwork{Name: fmt.Sprintf("L%dM%d", p.L, p.M),
				Accuracies: p.Accuracies})
		}
		f.Spaces = append(f.Spaces, space)
	}
	return f
}

// sizes makes up pairs and products of three group convolutions at one budget.
func sizes() plots.AccuracyVsSize {
	igc := plots.SizeSeries{Name: "IGC"}
	for _, p := range series("", table1i[:4], 63.9, 3).Points {
		igc.Points = append(igc.Points, plots.SizePoint{Name: fmt.Sprintf("L%dM%d", p.L, p.M),
			Size: float64(p.L * p.M), Accuracies: p.Accuracies})
	}
	igcv2 := plots.SizeSeries{Name: "IGCV2"}
	for i, name := range []string{"M1K5K6K6", "M1K12K11", "M2K5K15", "M1K12K13"} {
		width := []float64{180, 132, 150, 156}[i]
		igcv2.Points = append(igcv2.Points, plots.SizePoint{Name: name, Size: width,
			Accuracies: []float64{64 + math.Sin(width), 64.4 + math.Sin(width), 65 + math.Sin(width)}})
	}
	return plots.AccuracyVsSize{Series: []plots.SizeSeries{igc, igcv2}, Seeds: true}
}

// crowded makes up so many networks of about the same cost and accuracy.
func crowded(n int) plots.Pareto {
	f := plots.Pareto{CostLabel: "multiply–adds (millions)"}
	for i := range n {
		a := 60 + 0.5*math.Sin(float64(5*i))
		f.Points = append(f.Points, plots.CostPoint{Name: fmt.Sprintf("L%dM%d", 2*n-i, i+1),
			Cost: 30 + 0.4*math.Cos(float64(11*i)), Accuracies: []float64{a, a + 0.1}})
	}
	return f
}

// race makes up a race of the pairs of Table 1 (i), in which those with the
// largest M are dropped first.
func race() plots.RaceHistory {
	f := plots.RaceHistory{Bar: plots.CI95}
	for i, p := range series("", table1i, 63.9, 8).Points {
		a := plots.RaceNetwork{Name: fmt.Sprintf("L%dM%d", p.L, p.M), Accuracies: p.Accuracies}
		if i > 2 {
			a.Accuracies, a.Dropped = p.Accuracies[:max(3, 9-i)], true
		}
		f.Networks = append(f.Networks, a)
	}
	return f
}

// pareto makes up networks whose dearest costs so much more than the cheapest.
func pareto(more float64) plots.Pareto {
	f := plots.Pareto{CostLabel: "multiply–adds (millions)"}
	for i, p := range series("", table1i, 63.9, 5).Points {
		cost := 30 + math.Sin(float64(2*i))
		f.Points = append(f.Points, plots.CostPoint{
			Name: fmt.Sprintf("L%dM%d", p.L, p.M), Cost: cost * math.Pow(more, float64(8-i)/8),
			Accuracies: p.Accuracies, Front: p.M == 2 || p.M == 3 || more > 1 && p.M > 3,
		})
	}
	return f
}

func encode(t *testing.T, f plots.Figure, format string, options ...plots.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := plots.Encode(&b, format, f, append(options, plots.Options{})[0]); err != nil {
		t.Fatalf("%s: %v", format, err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		if strings.HasPrefix(name, "single-") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := encode(t, figures[name], "png", optionsOf[name])
			golden := filepath.Join("testdata", name+".png")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			// 0.1 of the distance between black and white: other processors
			// may round an edge's shade otherwise.
			if same, err := cmpimg.EqualApprox("png", got, want, 0.1); err != nil || !same {
				path := filepath.Join(t.ArtifactDir(), name+".png")
				os.WriteFile(path, got, 0o644)
				t.Errorf("differs from %s (%v): look at %s, and run with -update if it is right", golden, err, path)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	tikz := tikzFigures()
	for name, f := range figures {
		for _, format := range plots.Formats() {
			if (format == "tikz" || format == "dat") && !slices.Contains(tikz, name) {
				continue
			}
			t.Run(fmt.Sprintf("%s is the same %s each time, at the same time", name, format), func(t *testing.T) {
				t.Parallel()
				want := encode(t, f, format)
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						var got bytes.Buffer
						err := plots.Encode(&got, format, f, plots.Options{})
						if err != nil || !bytes.Equal(got.Bytes(), want) {
							t.Errorf("%d bytes, then %d bytes, error %v", len(want), got.Len(), err)
						}
					})
				}
				wg.Wait()
			})
		}
		t.Run(name+" has no NaN", func(t *testing.T) {
			for _, format := range []string{"svg", "eps", "tex", "csv"} {
				out := encode(t, f, format)
				if format == "svg" { // the font is base64, which may spell anything
					_, out, _ = bytes.Cut(out, []byte("</defs>"))
				}
				if bytes.Contains(out, []byte("NaN")) || bytes.Contains(out, []byte("Inf")) {
					t.Errorf("%s has", format)
				}
			}
		})
	}
	t.Run("an unknown format is refused with the known ones", func(t *testing.T) {
		err := plots.Encode(io.Discard, "gif", figures["one-series"], plots.Options{})
		want := `figure format "gif" is unknown: want one of pdf, svg, png, eps, tex, pgf, tikz, dat, csv`
		if err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the date is the one given", func(t *testing.T) {
		f := vsM(plain)
		date := plots.Options{Date: time.Date(2017, 7, 10, 14, 0, 0, 0, time.FixedZone("", 2*3600))}
		for format, want := range map[string]string{
			"pdf": "/CreationDate (D:20170710120000", "eps": "%%CreationDate: 2017-07-10T12:00:00Z",
		} {
			if !bytes.Contains(encode(t, f, format, date), []byte(want)) {
				t.Errorf("%s lacks %q", format, want)
			}
		}
	})
}

func TestPDF(t *testing.T) {
	t.Parallel()
	f := plots.AccuracyVsM{Series: []plots.Series{series("café ½ – 50 %", table1i, 63.9, 5)}, WidthCurve: true}
	t.Run("embeds the part of its font that it needs", func(t *testing.T) {
		out := encode(t, f, "pdf")
		if !bytes.Contains(out, []byte("/FontFile2")) || !bytes.Contains(out, []byte("+LiberationSerif")) {
			t.Error("it does not")
		}
		if len(out) > 20_000 { // 219 kB with the whole font
			t.Errorf("%d bytes", len(out))
		}
	})
	t.Run("says ± where it is read back", func(t *testing.T) {
		tool, err := exec.LookPath("pdftotext")
		if err != nil {
			t.Skip("pdftotext is not installed (package poppler-utils)")
		}
		path := filepath.Join(t.TempDir(), "f.pdf")
		if err := os.WriteFile(path, encode(t, f, "pdf"), 0o666); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(tool, "-layout", "-enc", "UTF-8", path, "-").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"mean ± std, n = 5", "café ½ – 50 %", "width G = L·M", "accuracy (%)"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("lacks %q:\n%s", want, out)
			}
		}
	})
}

func TestCharacters(t *testing.T) {
	t.Parallel()
	named := func(text string) plots.Figure {
		return plots.AccuracyVsM{Series: []plots.Series{series(text, table1i, 63.9, 5)}}
	}
	for _, format := range plots.Formats() {
		lacks := []string{"中", "🙂", "\u202e", "\x01", "\u200b"}
		has := []string{"café – 50 %", "a | b -- c", "‘x’ “y” …", "½ ² °"}
		switch format {
		case "csv":
			has, lacks = append(has, lacks...), nil
		case "pdf":
			lacks = append(lacks, "α", "Ж")
		case "tex", "pgf", "tikz", "dat":
			lacks, has = append(lacks, "Ж", "€", "ð"), append(has, "α = 0.1 ≤ Ω")
		default:
			has = append(has, "α = 0.1", "Ж", "€")
		}
		for _, text := range has {
			encode(t, named(text), format)
		}
		for _, text := range lacks {
			t.Run(fmt.Sprintf("%s without %q says so, and nothing is written", format, text), func(t *testing.T) {
				for what, o := range map[string]plots.Options{"x" + text: {}, "title " + text: {Title: "title " + text},
					"axis " + text: {AccuracyLabel: "axis " + text}} {
					f := vsM(plain)
					if o == (plots.Options{}) {
						f = named(what).(plots.AccuracyVsM)
					}
					var out bytes.Buffer
					err := plots.Encode(&out, format, f, o)
					char := fmt.Sprintf("%q (%U)", []rune(text)[0], []rune(text)[0])
					if err == nil || !strings.Contains(err.Error(), char) ||
						!strings.Contains(err.Error(), strconv.Quote(what)) && !strings.HasPrefix(what, "axis") {
						t.Errorf("%s: got %v, want %s", what, err, char)
					}
					if out.Len() > 0 {
						t.Errorf("%d bytes are written", out.Len())
					}
				}
			})
		}
	}
}

// svgTexts returns the texts of an SVG figure with their places.
func svgTexts(t *testing.T, svg []byte) (texts []string, x, y []float64) {
	t.Helper()
	dec := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return texts, x, y
		}
		if err != nil {
			t.Fatal(err)
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "text" {
			continue
		}
		var e struct {
			X    float64 `xml:"x,attr"`
			Y    float64 `xml:"y,attr"`
			Text string  `xml:",chardata"`
		}
		if err := dec.DecodeElement(&e, &start); err != nil {
			t.Fatal(err)
		}
		texts, x, y = append(texts, e.Text), append(x, e.X), append(y, e.Y)
	}
}

func TestSVG(t *testing.T) {
	t.Parallel()
	t.Run("embeds its font and has no transparency", func(t *testing.T) {
		out := string(encode(t, figures["learning"], "svg"))
		if !strings.Contains(out, "@font-face") || !strings.Contains(out, "base64,") {
			t.Error("no font")
		}
		if strings.Contains(out, "opacity") {
			t.Error("something is translucent")
		}
		if len(out) > 80_000 { // 546 kB with the whole font
			t.Errorf("%d bytes", len(out))
		}
	})
	t.Run("says what it shows to those who do not see it", func(t *testing.T) {
		o := plots.Options{Name: "Budget <i>", Description: "accuracy & M"}
		want := "<title>Budget &lt;i&gt;</title>\n<desc>accuracy &amp; M</desc>\n"
		if out := string(encode(t, vsM(plain), "svg", o)); !strings.Contains(out, want) {
			t.Errorf("lacks %s", want)
		}
	})
	t.Run("outlines need no font", func(t *testing.T) {
		out := encode(t, figures["one-series"], "svg", plots.Options{Outlines: true})
		if bytes.Contains(out, []byte("@font-face")) || bytes.Contains(out, []byte("<text")) || len(out) > 200_000 {
			t.Errorf("%d bytes, or a font, or text", len(out))
		}
	})
	t.Run("is XML whatever the names", func(t *testing.T) {
		texts, _, _ := svgTexts(t, encode(t, vsM(series(`a<b & "c" 50 %_#`, table1i, 63.9, 5)), "svg"))
		if !slices.Contains(texts, `a<b & "c" 50 %_#`) {
			t.Errorf("the name is not in %q", texts)
		}
	})
}

func TestAxisLabels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		pairs [][2]int
	}{{"nine", table1i}, {"eleven", table1ii}} {
		t.Run("the "+c.name+" pairs of Table 1 stand under the axis and do not touch", func(t *testing.T) {
			f := plots.AccuracyVsM{Series: []plots.Series{series("", c.pairs, 65, 5)}}
			texts, x, y := svgTexts(t, encode(t, f, "svg"))
			for row, head := range []string{"M", "L"} {
				at := slices.Index(texts, head)
				if at < 0 {
					t.Fatalf("no row of %s in %q", head, texts)
				}
				var want, got []string
				for _, p := range c.pairs {
					want = append(want, strconv.Itoa([]int{p[1], p[0]}[row]))
				}
				end := x[at]
				for i := range texts {
					if i == at || y[i] != y[at] {
						continue
					}
					got = append(got, texts[i])
					if x[i] < end+2 {
						t.Errorf("%s %s starts at %.1f pt, the text before it ends at %.1f", head, texts[i], x[i], end)
					}
					end = x[i] + 3.5*float64(len(texts[i])) // a digit of 7 pt is half as wide
				}
				if !slices.Equal(got, want) {
					t.Errorf("row %s is %v, want %v", head, got, want)
				}
			}
		})
	}
	t.Run("series with different L have a row each", func(t *testing.T) {
		texts, _, _ := svgTexts(t, encode(t, figures["two-series"], "svg"))
		rows := 0
		for _, s := range texts {
			if s == "L" {
				rows++
			}
		}
		if rows != 2 {
			t.Errorf("%d rows of L", rows)
		}
	})
	t.Run("series that share their L have one row", func(t *testing.T) {
		texts, _, _ := svgTexts(t, encode(t, figures["seeds"], "svg"))
		if first := slices.Index(texts, "L"); first < 0 || slices.Contains(texts[first+1:], "L") {
			t.Errorf("not one row of L in %q", texts)
		}
	})
	t.Run("several L of one M are a range", func(t *testing.T) {
		f := plots.AccuracyVsM{Series: []plots.Series{series("", [][2]int{{64, 1}, {41, 2}, {39, 2}, {40, 2}}, 63, 3)}}
		texts, _, _ := svgTexts(t, encode(t, f, "svg"))
		if !slices.Contains(texts, "39–41") {
			t.Errorf("got %q", texts)
		}
	})
}

func TestTeX(t *testing.T) {
	t.Parallel()
	f := plots.AccuracyVsM{Series: []plots.Series{series(`50% of a_b & #1 {x} \y`, table1i, 63.9, 5)}, WidthCurve: true}
	out := string(encode(t, f, "tex"))
	t.Run("escapes what TeX would read", func(t *testing.T) {
		for _, want := range []string{
			`50\% of a\_b \& \#1 \{x\} \textbackslash{}y}`, `mean $\pm$ std, n = 5}`,
			`accuracy (\%)}`, `width G = L$\cdot$M}`,
		} {
			if !strings.Contains(out, want) {
				t.Errorf("lacks %q", want)
			}
		}
		if i := strings.IndexFunc(out, func(r rune) bool { return r > 127 }); i >= 0 {
			t.Errorf("not ASCII: %q", out[i:min(i+20, len(out))])
		}
	})
	t.Run("only there", func(t *testing.T) {
		texts, _, _ := svgTexts(t, encode(t, f, "svg"))
		if !slices.Contains(texts, `50% of a_b & #1 {x} \y`) {
			t.Errorf("SVG has %q", texts)
		}
	})
	t.Run("has no length in exponent form, which TeX cannot read", func(t *testing.T) {
		for name, f := range figures {
			if bad := regexp.MustCompile(`\de[-+]\d+pt`).Find(encode(t, f, "tex")); bad != nil {
				t.Errorf("%s: %s", name, bad)
			}
		}
	})
}

// latex makes a PDF of a document with this preamble and body, in a folder. It skips the test where the tool or a
// package is missing.
func latex(t *testing.T, dir, preamble, body string, packages ...string) {
	t.Helper()
	tool, err := exec.LookPath("pdflatex")
	if err != nil {
		t.Skip("pdflatex is not installed (packages texlive-latex-base and texlive-pictures)")
	}
	for _, name := range packages {
		if err := exec.Command("kpsewhich", name+".sty").Run(); err != nil {
			t.Skipf("LaTeX has no package %s", name)
		}
		preamble += "\\usepackage{" + name + "}\n"
	}
	document := "\\documentclass{article}\n" + preamble + "\\begin{document}\n" + body + "\\end{document}\n"
	if err := os.WriteFile(filepath.Join(dir, "paper.tex"), []byte(document), 0o644); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(tool, "-interaction=nonstopmode", "-halt-on-error", "paper.tex")
	run.Dir = dir
	out, err := run.CombinedOutput()
	if err != nil || strings.Contains(string(out), "Missing character") {
		t.Errorf("%v:\n%s", err, out[max(0, len(out)-3000):])
	}
}

// tikzFigures are the figures that have a form for pgfplots.
func tikzFigures() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		if plots.Encode(io.Discard, "tikz", figures[name], optionsOf[name]) == nil {
			names = append(names, name)
		}
	}
	return names
}

func TestLaTeX(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	body := ""
	for _, name := range []string{"band", "edf", "panels-same", "pareto-log", "size"} {
		o := optionsOf[name]
		o.Data = name + ".dat"
		write(name+".tikz", encode(t, figures[name], "tikz", o))
		write(name+".dat", encode(t, figures[name], "dat", o))
		write(name+".pgf", encode(t, figures[name], "pgf", o))
		body += fmt.Sprintf("\\input{%[1]s.tikz}\\par\\input{%[1]s.pgf}\\par\n", name)
	}
	latex(t, dir, "\\usepackage{pgfplots}\\pgfplotsset{compat=1.16}\\usepgfplotslibrary{groupplots}\n", body, "pgfplots")
}

func TestTikZ(t *testing.T) {
	t.Parallel()
	t.Run("has every kind but those that pgfplots needs other code for", func(t *testing.T) {
		got := tikzFigures()
		for _, name := range []string{"edf", "learning", "loss", "one-series", "panels", "pareto-log", "race", "size"} {
			if !slices.Contains(got, name) {
				t.Errorf("%s has none", name)
			}
		}
		for _, name := range []string{"heatmap", "width"} {
			err := plots.Encode(io.Discard, "tikz", figures[name], plots.Options{})
			if err == nil || !strings.Contains(err.Error(), "neither a heat map nor a second axis: save as pgf") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("reads the means and bars of its table", func(t *testing.T) {
		f := vsM(plots.Series{Name: "a_b", Points: []plots.Point{{L: 64, M: 1, Accuracies: []float64{60}},
			{L: 40, M: 2, Accuracies: []float64{61, 63}}}})
		code := string(encode(t, f, "tikz", plots.Options{Data: "a.dat", Name: "n", Description: "d"}))
		for _, want := range []string{"% n: d\n", "table[x=x1-1,y=y1-1,y error minus=minus1-1,y error plus=plus1-1] {a.dat}",
			`\addlegendentry{a\_b}`, `\addlegendentry{mean $\pm$ std, n = 1--2}`, "xmode=log,log basis x=2",
			`xticklabels={{1\\64},{2\\40}}`} {
			if !strings.Contains(code, want) {
				t.Errorf("lacks %s:\n%s", want, code)
			}
		}
		want := "linex1-1 liney1-1 x1-1 y1-1 minus1-1 plus1-1\n1 60 1 60 0 0\n2 62 2 62 1.414214 1.414214\n"
		if got := string(encode(t, f, "dat")); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

func TestEPS(t *testing.T) {
	t.Parallel()
	out := string(encode(t, figures["two-series"], "eps"))
	header, box := "%!PS-Adobe-3.0 EPSF-3.0\n", "\n%%BoundingBox: 0 0 234 159\n"
	if !strings.HasPrefix(out, header) || !strings.Contains(out, box) {
		t.Errorf("starts %q", out[:200])
	}
	// Text as outlines needs no font of the printer's.
	if strings.Contains(out, "findfont") || strings.Contains(out, ") show") {
		t.Error("has text that needs a font")
	}
	if strings.Count(out, "curveto") < 1000 {
		t.Error("has no outlines")
	}
}

func TestPNG(t *testing.T) {
	t.Parallel()
	out := encode(t, figures["one-series"], "png")
	config, err := png.DecodeConfig(bytes.NewReader(out))
	if err != nil || config.Width != 975 || config.Height != 660 { // 3.25 × 2.2 in at 300 dpi
		t.Errorf("%d × %d pixels, %v", config.Width, config.Height, err)
	}
	_, phys, ok := bytes.Cut(out, []byte("pHYs"))
	if !ok || binary.BigEndian.Uint32(phys) != 11811 || phys[8] != 1 { // 300/0.0254 per metre
		t.Error("does not say 300 dpi")
	}
	if _, err := png.Decode(bytes.NewReader(out)); err != nil { // checks the chunks' sums
		t.Error(err)
	}
}

// readCSV returns the rows of a figure's CSV by column name.
func readCSV(t *testing.T, f plots.Figure) []map[string]string {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(encode(t, f, "csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, row := range rows[1:] {
		m := map[string]string{}
		for i, name := range rows[0] {
			m[name] = row[i]
		}
		out = append(out, m)
	}
	return out
}

func TestBars(t *testing.T) {
	t.Parallel()
	// 61 … 65: mean 63, sample variance (4+1+0+1+4)/4 = 2.5.
	five, std := []float64{64, 61, 63, 65, 62}, math.Sqrt(2.5)
	ten := []float64{60, 61, 62, 63, 64, 65, 66, 67, 68, 69}
	of := func(bar plots.Bar, accuracies ...float64) plots.AccuracyVsM {
		f := vsM(plots.Series{Points: []plots.Point{{L: 40, M: 2, Accuracies: accuracies}}})
		f.Bar = bar
		return f
	}
	for _, c := range []struct {
		bar       plots.Bar
		values    []float64
		mean      float64
		half, tol float64
	}{
		{"", five, 63, std, 1e-6},
		{plots.Std, five, 63, std, 1e-6},
		{plots.SEM, five, 63, std / math.Sqrt(5), 1e-6},
		{plots.MinMax, five, 63, 2, 0},
		// Two-sided 95 % points of Student's t, as tables print them (for
		// example NIST/SEMATECH e-Handbook, 1.3.6.7.2): 12.706, 4.303, 2.776
		// and 2.262 for 1, 2, 4 and 9 degrees of freedom.
		{plots.CI95, []float64{62, 64}, 63, 12.706 * math.Sqrt(2) / math.Sqrt(2), 0.001},
		{plots.CI95, []float64{61, 63, 65}, 63, 4.303 * 2 / math.Sqrt(3), 0.001},
		{plots.CI95, five, 63, 2.776 * std / math.Sqrt(5), 0.001},
		// 60 … 69: variance 82.5/9.
		{plots.CI95, ten, 64.5, 2.262 * math.Sqrt(82.5/9) / math.Sqrt(10), 0.001},
	} {
		t.Run(fmt.Sprintf("%q of %d seeds", c.bar, len(c.values)), func(t *testing.T) {
			row := readCSV(t, of(c.bar, c.values...))[0]
			for column, want := range map[string]float64{
				"mean": c.mean, "low": c.mean - c.half, "high": c.mean + c.half,
				"n": float64(len(c.values)), "width": 80,
			} {
				if got, err := strconv.ParseFloat(row[column], 64); err != nil || math.Abs(got-want) > c.tol+1e-6 {
					t.Errorf("%s is %s, want %g", column, row[column], want)
				}
			}
		})
	}
	t.Run("one seed has none", func(t *testing.T) {
		for _, bar := range []plots.Bar{plots.Std, plots.SEM, plots.CI95, plots.MinMax} {
			if row := readCSV(t, of(bar, 63))[0]; row["low"] != "" || row["high"] != "" || row["mean"] != "63" {
				t.Errorf("%s: %v", bar, row)
			}
		}
	})
}

func TestLegendSays(t *testing.T) {
	t.Parallel()
	mixed := series("", table1i, 63.9, 5)
	mixed.Points[3].Accuracies = mixed.Points[3].Accuracies[:2]
	for want, f := range map[string]plots.AccuracyVsM{
		"mean ± std, n = 5":    {Series: []plots.Series{series("", table1i, 63.9, 5)}},
		"mean ± std, n = 2–5":  {Series: []plots.Series{mixed}},
		"mean ± sem, n = 3":    {Series: []plots.Series{series("", table1i, 63.9, 3)}, Bar: plots.SEM},
		"mean, 95 % CI, n = 3": {Series: []plots.Series{series("", table1i, 63.9, 3)}, Bar: plots.CI95},
		"mean, min–max, n = 3": {Series: []plots.Series{series("", table1i, 63.9, 3)}, Bar: plots.MinMax},
		"n = 1":                {Series: []plots.Series{series("", table1i, 63.9, 1)}},
	} {
		t.Run(want, func(t *testing.T) {
			if texts, _, _ := svgTexts(t, encode(t, f, "svg")); !slices.Contains(texts, want) {
				t.Errorf("got %q", texts)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	one := func(p ...plots.Point) []plots.Series { return []plots.Series{{Name: "s", Points: p}} }
	at := func(l, m int, accuracies ...float64) plots.AccuracyVsM {
		return plots.AccuracyVsM{Series: one(plots.Point{L: l, M: m, Accuracies: accuracies})}
	}
	banded := func(mean, low, high float64) plots.AccuracyVsM {
		return plots.AccuracyVsM{Band: plots.Simultaneous, Series: one(plots.Point{L: 40, M: 2,
			Accuracies: []float64{63}, Expected: &plots.Expected{Mean: mean, Low: low, High: high}})}
	}
	curve := func(loss bool, e ...plots.Epoch) plots.LearningCurves {
		return plots.LearningCurves{Curves: []plots.LearningCurve{{Name: "c", Epochs: e}}, Loss: loss}
	}
	cost := func(cost float64) plots.Pareto {
		return plots.Pareto{Points: []plots.CostPoint{{Name: "a", Cost: cost, Accuracies: []float64{1}}}}
	}
	race := func(networks ...plots.RaceNetwork) plots.RaceHistory { return plots.RaceHistory{Networks: networks} }
	rows := func(name string, pairs [][2]int) plots.HeatMap {
		return plots.HeatMap{Rows: []plots.Series{series(name, pairs, 60, 1)}}
	}
	ok, good := plots.Point{L: 40, M: 2, Accuracies: []float64{63}}, at(40, 2, 63)
	nan, inf := math.NaN(), math.Inf(1)
	long := strings.Repeat("long ", 20)
	var none plots.Options
	for _, c := range []struct {
		says string
		f    plots.Figure
		o    plots.Options
	}{
		{"nothing to draw", plots.AccuracyVsM{}, none},
		{"no point has an accuracy", at(40, 2), none},
		{`series "s", L = 40, M = 2: accuracy NaN`, at(40, 2, nan), none},
		{"accuracy 101, want 0 to 100", at(40, 2, 101), none},
		{"accuracy -Inf", at(40, 2, -inf), none},
		{"L = 40, M = 0: want both at least 1", at(40, 0, 1), none},
		{"L = 40, M = 2: given twice", plots.AccuracyVsM{Series: one(ok, ok)}, none},
		{`two series are named "s"`, plots.AccuracyVsM{Series: append(one(ok), one(ok)...)}, none},
		{"series 2 of 2 has no name", plots.AccuracyVsM{Series: append(one(ok), plots.Series{})}, none},
		{`bar "sd" is unknown`, plots.AccuracyVsM{Series: one(ok), Bar: "sd"}, none},
		{`band "wide" is unknown`, plots.AccuracyVsM{Series: one(ok), Band: "wide"}, none},
		{"L = 40, M = 2: nothing is expected of it", plots.AccuracyVsM{Series: one(ok), Band: plots.Pointwise}, none},
		{"L = 40, M = 2: band NaN, want 0 to 100", banded(nan, 1, 2), none},
		{"L = 40, M = 2: band from 3 to 2, want the low end first", banded(2, 3, 2), none},
		{"width 100 in: want 1 to 40", good, plots.Options{Width: 100}},
		{"height NaN in", good, plots.Options{Height: nan}},
		{"make it larger", good, plots.Options{Width: 1, Height: 1}},
		{"the legend is", plots.AccuracyVsM{Series: []plots.Series{{Name: long, Points: []plots.Point{ok}}}}, none},
		{"the title is", good, plots.Options{Title: long}},
		{"no epoch has accuracy values", curve(false), none},
		{`curve "c", epoch 0`, curve(false, plots.Epoch{Accuracies: []float64{1}}), none},
		{`curve "c", epoch 1: accuracy NaN`, curve(false, plots.Epoch{Number: 1, Accuracies: []float64{nan}}), none},
		{"train_loss +Inf, want a finite", curve(true, plots.Epoch{Number: 1, TrainLosses: []float64{inf}}), none},
		{"train_accuracy 101, want", curve(false, plots.Epoch{Number: 1, TrainAccuracies: []float64{101}}), none},
		{"no epoch has loss values", curve(true, plots.Epoch{Number: 1, Accuracies: []float64{1}}), none},
		{"no network has an accuracy", race(plots.RaceNetwork{Name: "L1M1"}), none},
		{`two networks are named "a"`, race(plots.RaceNetwork{Name: "a"}, plots.RaceNetwork{Name: "a"}), none},
		{"network 2 of 2 has no name", race(plots.RaceNetwork{Name: "a"}, plots.RaceNetwork{}), none},
		{`network "a": accuracy NaN`, race(plots.RaceNetwork{Name: "a", Accuracies: []float64{nan}}), none},
		{"nothing to draw", plots.Pareto{}, none},
		{"cost 0", cost(0), none},
		{"cost +Inf", cost(inf), none},
		{`bar "x" is unknown`, plots.Pareto{Bar: "x"}, none},
		{"the title is", cost(1), plots.Options{Title: long}},
		{"nothing to draw", rows("1", nil), none},
		{"a row has no name", rows("", table1i), none},
		{"make it larger", rows("1", table1i), plots.Options{Width: 1, Height: 1}},
		{"text size 2 pt: want 5 to 20", good, plots.Options{TextSize: 2}},
		{`font "mono" is unknown`, good, plots.Options{Font: "mono"}},
		{"limits 3 to 2 of the x axis: want the lower end first", good, plots.Options{X: plots.Limits{Low: 3, High: 2}}},
		{"leave out everything", good, plots.Options{Y: plots.Limits{Low: 90, High: 95}}},
		{"leave out everything", good, plots.Options{X: plots.Limits{Low: -4, High: 95}}},
		{"leave out everything", good, plots.Options{X: plots.Limits{Low: 100, High: 200}}},
		{"leave out everything", good, plots.Options{X: plots.Limits{Low: 0, High: 0.5}}}, // no 0 on its axis
		{"leave out everything", rows("1", table1i), plots.Options{Y: plots.Limits{Low: 1000, High: nan}}},
		{"leave out everything", rows("1", table1i), plots.Options{Y: plots.Limits{Low: 1000, High: 2000}}},
		{"leave out everything", plots.EDF{Spaces: []plots.DesignSpace{{Name: "s",
			Networks: []plots.SpaceNetwork{{Name: "a", Accuracies: []float64{50}}}}}},
			plots.Options{X: plots.Limits{Low: 60, High: 70}}},
		{"1 panels, want 2 to 6", plots.Panels{Panels: []plots.Panel{{Figure: good}}}, none},
		{"panel (b): nothing to draw", plots.Panels{Panels: []plots.Panel{{Figure: good}, {Figure: vsM()}}}, none},
		{"of different kinds", plots.Panels{Panels: []plots.Panel{{Figure: good}, {Figure: cost(1)}}}, none},
		{"panel (a): want one figure", plots.Panels{Panels: make([]plots.Panel, 2)}, none},
		{"nothing to draw", plots.EDF{}, none},
		{`network "a" of "s": accuracy NaN`, plots.EDF{Spaces: []plots.DesignSpace{{Name: "s",
			Networks: []plots.SpaceNetwork{{Name: "a", Accuracies: []float64{nan}}}}}}, none},
		{"nothing to draw", plots.AccuracyVsSize{}, none},
		{`point "a": size 0`, plots.AccuracyVsSize{Series: []plots.SizeSeries{{Points: []plots.SizePoint{{Name: "a"}}}}}, none},
	} {
		t.Run(fmt.Sprintf("%T: %s", c.f, c.says), func(t *testing.T) {
			err := plots.Encode(io.Discard, "svg", c.f, c.o)
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestBand(t *testing.T) {
	t.Parallel()
	f := plots.AccuracyVsM{Band: plots.Pointwise, Series: []plots.Series{{Name: "a", Points: []plots.Point{
		{L: 64, M: 1, Accuracies: []float64{60}, Expected: &plots.Expected{Mean: 60.5, Low: 58.25, High: 62}},
		{L: 41, M: 2, Accuracies: []float64{61, 63}, Expected: &plots.Expected{Mean: 61.5, Low: 60, High: 62.5}},
		{L: 28, M: 3},
	}}}}
	want := "series,L,M,width,n,mean,low,high,bar,accuracies,expected,band_low,band_high,band\n" +
		"a,64,1,64,1,60,,,std,60,60.5,58.25,62,pointwise\n" +
		"a,41,2,82,2,62,60.585786,63.414214,std,61 63,61.5,60,62.5,pointwise\n"
	if got := string(encode(t, f, "csv")); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for band, says := range map[plots.Band]string{
		plots.Pointwise: "model: mean, 95 % band", plots.Simultaneous: "model: mean, 95 % band for all M"} {
		f.Band = band
		if texts, _, _ := svgTexts(t, encode(t, f, "svg")); !slices.Contains(texts, says) {
			t.Errorf("the legend of a %s band lacks %q: %q", band, says, texts)
		}
	}
}

func TestRace(t *testing.T) {
	t.Parallel()
	t.Run("the numbers are those of the first seeds", func(t *testing.T) {
		f := plots.RaceHistory{Networks: []plots.RaceNetwork{
			{Name: "L40M2", Accuracies: []float64{60, 62, 64}},
			{Name: "L64M1", Accuracies: []float64{50, 51}, Dropped: true},
		}}
		want := "network,seeds,mean,low,high,bar,alive\n" +
			"L40M2,1,60,,,std,1\nL40M2,2,61,59.585786,62.414214,std,1\nL40M2,3,62,60,64,std,1\n" +
			"L64M1,1,50,,,std,1\nL64M1,2,50.5,49.792893,51.207107,std,0\n"
		if got := string(encode(t, f, "csv")); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

func TestPareto(t *testing.T) {
	t.Parallel()
	t.Run("costs eight times apart stand on a logarithmic axis", func(t *testing.T) {
		texts, _, _ := svgTexts(t, encode(t, figures["pareto-log"], "svg"))
		for _, want := range []string{"20", "50", "100", "200", "500", "1000"} {
			if !slices.Contains(texts, want) {
				t.Errorf("no %s in %q", want, texts)
			}
		}
	})
}

func TestHeatMap(t *testing.T) {
	t.Parallel()
	t.Run("a cell has the best of its L", func(t *testing.T) {
		f := plots.HeatMap{Rows: []plots.Series{{Name: "4672", Points: []plots.Point{
			{L: 41, M: 2, Accuracies: []float64{60}},
			{L: 40, M: 2, Accuracies: []float64{61, 63}},
			{L: 64, M: 1, Accuracies: []float64{61}},
		}}}}
		want := "budget,L,M,n,mean,best\n4672,64,1,1,61,0\n4672,40,2,2,62,1\n"
		if got := string(encode(t, f, "csv")); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

func TestLearningCurves(t *testing.T) {
	t.Parallel()
	t.Run("draws the mean of the seeds that got there", func(t *testing.T) {
		f := plots.LearningCurves{Loss: true, Curves: []plots.LearningCurve{{Name: "L40M2", Epochs: []plots.Epoch{
			{Number: 2, Accuracies: []float64{30}, Losses: []float64{2.25},
				TrainAccuracies: []float64{40, 40}, TrainLosses: []float64{1.5, 2.5}},
			{Number: 1, Accuracies: []float64{10, 14}, TrainLosses: []float64{3, 3}},
			{Number: 3, TrainLosses: []float64{1}},
		}}}}
		got := string(encode(t, f, "csv"))
		// Sample deviations by hand: √8, 0, √½.
		want := "curve,measure,epoch,n,mean,low,high,bar\n" +
			"L40M2,accuracy,1,2,12,9.171573,14.828427,std\n" +
			"L40M2,accuracy,2,1,30,,,std\n" +
			"L40M2,train_accuracy,2,2,40,40,40,std\n" +
			"L40M2,loss,2,1,2.25,,,std\n" +
			"L40M2,train_loss,1,2,3,3,3,std\n" +
			"L40M2,train_loss,2,2,2,1.292893,2.707107,std\n" +
			"L40M2,train_loss,3,1,1,,,std\n"
		if got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		encode(t, f, "svg")
	})
}

func TestStyles(t *testing.T) {
	t.Parallel()
	for _, style := range plots.Styles() {
		for _, page := range []bool{false, true} {
			f, width := plots.Figure(figures["two-series"]), style.Column
			if page {
				f, width = figures["panels"], style.Page
			}
			t.Run(fmt.Sprintf("%s, over the page %v, is %.2f in wide", style.Name, page, width), func(t *testing.T) {
				config, err := png.DecodeConfig(bytes.NewReader(encode(t, f, "png", style.Options(page))))
				if err != nil || math.Abs(float64(config.Width)-300*width) > 1 {
					t.Errorf("%d pixels at 300 dpi, %v", config.Width, err)
				}
			})
		}
		if style.Source == "" {
			t.Errorf("nobody says where %s is from", style.Name)
		}
	}
}

// TestInside: whatever the size, no text is cut off. Encode returns an error where a text does not fit, so that a figure
// that is drawn is whole.
func TestInside(t *testing.T) {
	t.Parallel()
	long := plots.Options{AccuracyLabel: "accuracy on 10000 validation pictures, CIFAR-100 (20 superclasses) (%)"}
	small := []string{"edf", "heatmap", "heatmap-few", "one-series", "pareto", "single-cell", "single-cost", "single-race", "size"}
	large := []string{"learning", "loss", "panels", "panels-same", "race"} // of nine networks, or of two panels
	for name, f := range figures {
		sizes := [][2]float64{{}, {8 / 2.54, 6 / 2.54}, {6 / 2.54, 4 / 2.54}}
		switch {
		case slices.Contains(large, name):
			sizes = sizes[:1]
		case !slices.Contains(small, name):
			sizes = sizes[:2]
		}
		for _, size := range sizes {
			for _, font := range plots.Fonts() {
				o := long
				o.Width, o.Height, o.Font = size[0], size[1], font
				if err := plots.Encode(io.Discard, "pgf", f, o); err != nil {
					t.Errorf("%s of %.2f × %.2f in, %s: %v", name, size[0], size[1], font, err)
				}
			}
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	t.Run("leave out the labels and names of what is outside", func(t *testing.T) {
		texts, _, _ := svgTexts(t, encode(t, vsM(plain), "svg", plots.Options{X: plots.Limits{Low: 2, High: 16}}))
		if slices.Contains(texts, "64") || slices.Contains(texts, "23") || !slices.Contains(texts, "28") {
			t.Errorf("got %q", texts)
		}
		texts, _, _ = svgTexts(t, encode(t, figures["size"], "svg", plots.Options{X: plots.Limits{Low: 100, High: 200}}))
		if slices.Contains(texts, "L64M1") || !slices.Contains(texts, "M1K5K6K6") {
			t.Errorf("got %q", texts)
		}
	})
	t.Run("set the scale of colours", func(t *testing.T) {
		texts, _, _ := svgTexts(t, encode(t, figures["heatmap"], "svg", plots.Options{Y: plots.Limits{Low: 60, High: 64}}))
		if !slices.Contains(texts, "61") && !slices.Contains(texts, "61.0") {
			t.Errorf("got %q", texts)
		}
	})
}

func TestPanels(t *testing.T) {
	t.Parallel()
	t.Run("name the panel in each row of the table", func(t *testing.T) {
		f := plots.Panels{Panels: []plots.Panel{{Name: "x", Figure: vsM(point)}, {Figure: vsM(point)}}}
		want := "panel,title,series,L,M,width,n,mean,low,high,bar,accuracies\na,x,,64,1,64,1,62.8,,,std,62.8\n" +
			"b,,,64,1,64,1,62.8,,,std,62.8\n"
		if got := string(encode(t, f, "csv")); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
	t.Run("have one legend, which says the panel of what looks otherwise in another", func(t *testing.T) {
		curves := func(names ...string) plots.LearningCurves {
			var f plots.LearningCurves
			for _, name := range names {
				f.Curves = append(f.Curves, plots.LearningCurve{Name: name, Epochs: []plots.Epoch{
					{Number: 1, Accuracies: []float64{10}}, {Number: 2, Accuracies: []float64{20}}}})
			}
			return f
		}
		f := plots.Panels{Panels: []plots.Panel{{Figure: curves("same", "swapped", "other")},
			{Figure: curves("same", "other", "swapped", "new")}}}
		texts, _, _ := svgTexts(t, encode(t, f, "svg"))
		want := []string{"(a) other", "(a) swapped", "(b) new", "(b) other", "(b) swapped", "same"}
		var got []string
		for _, text := range texts {
			if slices.Contains(want, text) || slices.Contains([]string{"(a) same", "other", "swapped", "new"}, text) {
				got = append(got, text)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("have the same ticks on axes of the same range", func(t *testing.T) {
		texts, x, y := svgTexts(t, encode(t, figures["panels-same"], "svg"))
		at := map[string][]float64{} // the heights of a label
		for i, text := range texts {
			if _, err := strconv.ParseFloat(text, 64); err == nil && (x[i] < 60 || x[i] > 240 && x[i] < 290) {
				at[text] = append(at[text], y[i])
			}
		}
		for _, tick := range []string{"45", "50", "55", "60", "65", "70"} {
			if len(at[tick]) != 2 || at[tick][0] != at[tick][1] {
				t.Errorf("%s stands at %v", tick, at[tick])
			}
		}
	})
}

func TestEDF(t *testing.T) {
	t.Parallel()
	f := plots.EDF{Spaces: []plots.DesignSpace{{Networks: []plots.SpaceNetwork{
		{Name: "worse", Accuracies: []float64{60}},
		{Name: "best", Accuracies: []float64{70, 72}},
		{Name: "as bad", Accuracies: []float64{59, 61}},
		{Name: "none"},
	}}}}
	// Two of three networks have an error of 40 %, so that the share steps from 1/3 to 1 there.
	want := "space,network,n,error,share\n,best,2,29,0.333333\n,worse,1,40,1\n,as bad,2,40,1\n"
	if got := string(encode(t, f, "csv")); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func ExampleEncode() {
	f := plots.AccuracyVsM{Series: []plots.Series{{
		Name: "fig3a",
		Points: []plots.Point{
			{L: 40, M: 2, Accuracies: []float64{63.5, 64.1, 64.1}},
			{L: 64, M: 1, Accuracies: []float64{63.1}},
		},
	}}}
	plots.Encode(os.Stdout, "csv", f, plots.Options{})
	// Output:
	// series,L,M,width,n,mean,low,high,bar,accuracies
	// fig3a,64,1,64,1,63.1,,,std,63.1
	// fig3a,40,2,80,3,63.9,63.55359,64.24641,std,63.5 64.1 64.1
}
