package plots

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"unicode/utf16"

	subset "github.com/tdewolff/font"
	"golang.org/x/image/font/sfnt"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg/recorder"
)

// subsetsFor returns the fonts of texts, by their names, cut down to the characters of these texts: of Liberation
// Serif, 15 kB of 390 kB for a usual figure. The outlines, their hints and the kerning are those of the whole font.
func subsetsFor(texts []*recorder.FillString) map[font.Typeface]*sfnt.Font {
	type use struct {
		font  font.Font
		runes map[rune]bool
	}
	uses := map[font.Typeface]use{}
	for _, t := range texts {
		name := font.Typeface(t.Font.Name())
		if uses[name].runes == nil {
			uses[name] = use{t.Font, map[rune]bool{}}
		}
		for _, r := range t.String {
			uses[name].runes[r] = true
		}
	}
	fonts := map[font.Typeface]*sfnt.Font{}
	for name, u := range uses {
		fonts[name] = subsets.of(u.font, string(slices.Sorted(maps.Keys(u.runes))))
	}
	return fonts
}

// subsetCache keeps subsets, because vgpdf keeps what it makes of each font for ever. Figures of one study differ
// hardly in their characters.
type subsetCache struct {
	mu    sync.Mutex
	fonts map[string]*sfnt.Font
}

var subsets = subsetCache{fonts: map[string]*sfnt.Font{}}

// of returns a font cut down to some characters, which are sorted.
func (c *subsetCache) of(f font.Font, chars string) *sfnt.Font {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := f.Name() + " " + chars
	if c.fonts[key] == nil {
		var whole bytes.Buffer
		face := plot.DefaultTextHandler.Cache().Lookup(f, f.Size)
		if _, err := face.Face.WriteSourceTo(nil, &whole); err != nil {
			panic(err) // a font that is part of the program
		}
		data, err := subsetFont(whole.Bytes(), chars)
		if err != nil {
			panic(fmt.Sprintf("plots: cut down %s: %v", f.Name(), err))
		}
		if c.fonts[key], err = sfnt.Parse(data); err != nil {
			panic(fmt.Sprintf("plots: parse %s with the characters %q: %v", f.Name(), chars, err))
		}
	}
	return c.fonts[key]
}

// subsetFont returns a TrueType font with the glyphs of some characters only. Characters that the font lacks are
// passed over.
func subsetFont(whole []byte, chars string) ([]byte, error) {
	parsed, err := subset.ParseSFNT(whole, 0)
	if err != nil {
		return nil, err
	}
	glyphs := []uint16{0} // the box in place of what is missing
	for _, r := range chars {
		if g := parsed.GlyphIndex(r); g != 0 && !slices.Contains(glyphs, g) {
			glyphs = append(glyphs, g)
		}
	}
	tables := []string{"OS/2", "cmap", "cvt ", "fpgm", "glyf", "head", "hhea", "hmtx", "kern", "loca", "maxp", "post", "prep"}
	cut, err := parsed.Subset(glyphs, subset.SubsetOptions{Tables: tables})
	if err != nil {
		return nil, err
	}
	if cut.Tables["name"], err = nameTable(whole, chars); err != nil {
		return nil, err
	}
	return writeFont(cut.Tables, parsed.Tables["head"]), nil
}

// nameTable returns the table name of a subset: its family, its style, its full name and its PostScript name. The
// last begins with six letters and +, as PDF demands of a subset (ISO 32000-1, 9.6.4).
func nameTable(whole []byte, chars string) ([]byte, error) {
	parsed, err := sfnt.Parse(whole)
	if err != nil {
		return nil, err
	}
	hash := fnv.New32a()
	hash.Write([]byte(chars))
	letters := make([]byte, 6)
	for i, sum := 0, hash.Sum32(); i < len(letters); i++ {
		letters[i] = 'A' + byte(sum%26)
		sum /= 26
	}
	var records, texts []byte
	ids := []sfnt.NameID{sfnt.NameIDFamily, sfnt.NameIDSubfamily, sfnt.NameIDFull, sfnt.NameIDPostScript}
	for _, id := range ids {
		name, err := parsed.Name(nil, id)
		if err != nil {
			return nil, err
		}
		if id == sfnt.NameIDPostScript {
			name = string(letters) + "+" + name
		}
		var text []byte
		for _, unit := range utf16.Encode([]rune(name)) {
			text = binary.BigEndian.AppendUint16(text, unit)
		}
		// Platform 3 is Windows, encoding 1 is Unicode, 0x409 is English.
		for _, v := range []int{3, 1, 0x409, int(id), len(text), len(texts)} {
			records = binary.BigEndian.AppendUint16(records, uint16(v))
		}
		texts = append(texts, text...)
	}
	var table []byte
	for _, v := range []int{0, len(ids), 6 + len(records)} {
		table = binary.BigEndian.AppendUint16(table, uint16(v))
	}
	return slices.Concat(table, records, texts), nil
}

// writeFont puts the tables of a TrueType font into a file. Its dates are those of the table head of the whole font:
// the writer of tdewolff/font writes the time of day.
func writeFont(tables map[string][]byte, head []byte) []byte {
	const dates, sums = 20, 8 // where they stand in head: two dates of 8 bytes, the checksum of the file
	tables["head"] = slices.Clone(tables["head"])
	copy(tables["head"][dates:dates+16], head[dates:])
	binary.BigEndian.PutUint32(tables["head"][sums:], 0)
	tags := slices.Sorted(maps.Keys(tables))
	n := len(tags)
	log := bits.Len(uint(n)) - 1
	file := binary.BigEndian.AppendUint32(nil, 0x00010000)
	for _, v := range []int{n, 16 << log, log, 16*n - 16<<log} {
		file = binary.BigEndian.AppendUint16(file, uint16(v))
	}
	at := len(file) + 16*n
	var body []byte
	headAt := 0
	for _, tag := range tags {
		if tag == "head" {
			headAt = at + len(body)
		}
		padded := append(slices.Clone(tables[tag]), make([]byte, (4-len(tables[tag])%4)%4)...)
		file = append(file, tag...)
		for _, v := range []uint32{checksum(padded), uint32(at + len(body)), uint32(len(tables[tag]))} {
			file = binary.BigEndian.AppendUint32(file, v)
		}
		body = append(body, padded...)
	}
	file = append(file, body...)
	binary.BigEndian.PutUint32(file[headAt+sums:], 0xB1B0AFBA-checksum(file))
	return file
}

// checksum is the sum of a font's 32-bit words.
func checksum(b []byte) (sum uint32) {
	for ; len(b) > 0; b = b[4:] {
		sum += binary.BigEndian.Uint32(b)
	}
	return sum
}
