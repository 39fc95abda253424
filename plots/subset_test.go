package plots

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	xfont "golang.org/x/image/font"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"gonum.org/v1/plot"
)

func TestSubset(t *testing.T) {
	t.Parallel()
	const chars = " %()0123456789LMaefikotuwyé½–·±" // é is made of two others
	for _, family := range Fonts() {
		face := plot.DefaultTextHandler.Cache().Lookup(typefaces[family].small.Font, smallSize)
		var file bytes.Buffer
		if _, err := face.Face.WriteSourceTo(nil, &file); err != nil {
			t.Fatal(err)
		}
		data, err := subsetFont(file.Bytes(), chars)
		if err != nil {
			t.Fatal(err)
		}
		cut, err := sfnt.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		whole := face.Face
		t.Run("of "+string(family)+" has the outlines, widths and kerning of the whole font", func(t *testing.T) {
			var a, b sfnt.Buffer
			em := fixed.Int26_6(whole.UnitsPerEm())
			for _, r := range chars {
				i, err1 := whole.GlyphIndex(&a, r)
				k, err2 := cut.GlyphIndex(&b, r)
				if err1 != nil || err2 != nil || k == 0 {
					t.Fatalf("%q is glyph %d of the whole font, %d of the subset, errors %v, %v", r, i, k, err1, err2)
				}
				want, err1 := whole.LoadGlyph(&a, i, em, nil)
				got, err2 := cut.LoadGlyph(&b, k, em, nil)
				if err1 != nil || err2 != nil || !cmp.Equal(want, got) {
					t.Errorf("the outlines of %q differ, errors %v, %v:\n%s", r, err1, err2, cmp.Diff(want, got))
				}
				wantWidth, _ := whole.GlyphAdvance(&a, i, em, xfont.HintingNone)
				gotWidth, _ := cut.GlyphAdvance(&b, k, em, xfont.HintingNone)
				if wantWidth != gotWidth {
					t.Errorf("%q is %v wide, want %v", r, gotWidth, wantWidth)
				}
				for _, next := range chars {
					i2, _ := whole.GlyphIndex(&a, next)
					k2, _ := cut.GlyphIndex(&b, next)
					want, _ := whole.Kern(&a, i, i2, em, xfont.HintingNone) // an error is no kerning
					if got, _ := cut.Kern(&b, k, k2, em, xfont.HintingNone); want != got {
						t.Errorf("%q and %q are kerned by %v, want %v", r, next, got, want)
					}
				}
			}
			if missing, err := cut.GlyphIndex(&b, 'z'); err != nil || missing != 0 {
				t.Errorf("the subset has z, which was not asked for: glyph %d, %v", missing, err)
			}
			a2, err1 := whole.Metrics(&a, em, xfont.HintingNone)
			b2, err2 := cut.Metrics(&b, em, xfont.HintingNone)
			if err1 != nil || err2 != nil || a2.Ascent != b2.Ascent || a2.Descent != b2.Descent {
				t.Errorf("metrics %v (%v), want %v (%v)", b2, err2, a2, err1)
			}
		})
		t.Run("of "+string(family)+" is what browsers accept", func(t *testing.T) {
			tool, err := exec.LookPath("ots-sanitize") // the check of Chromium and Firefox
			if err != nil {
				t.Skip("ots-sanitize is not installed (package opentype-sanitizer)")
			}
			path := filepath.Join(t.TempDir(), "f.ttf")
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(tool, path).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
		t.Run("of "+string(family)+" is named as PDF demands, has right sums and is small", func(t *testing.T) {
			name, err := cut.Name(nil, sfnt.NameIDPostScript)
			if err != nil || !regexp.MustCompile(`^[A-Z]{6}\+Liberation(Serif|Sans)$`).MatchString(name) {
				t.Errorf("the name is %q, %v", name, err)
			}
			if sum := checksum(data); sum != 0xB1B0AFBA {
				t.Errorf("the sum of the file is %#x", sum)
			}
			if len(data) > 15_000 {
				t.Errorf("%d bytes of %d", len(data), file.Len())
			}
			again, err := subsetFont(file.Bytes(), chars)
			if err != nil || !bytes.Equal(again, data) {
				t.Errorf("other bytes the second time, %v", err)
			}
		})
	}
}
