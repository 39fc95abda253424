// Handsigns makes the files of the data set "handsigns" beside this source.
//
//	go run ./trainer/dataset/handsigns SOURCE
//
// SOURCE is a folder with the photographs of the Sign Language Digits Dataset
// at 32×32 pixels: pictures.png shows them, 40 a row, and pictures.csv lists
// file, digit and student of each in the same order. A student there is a run
// of file numbers.
//
// The photographs in colour would be 4 MB. Like a JPEG file does, the one that
// is made keeps the luminance Y of each pixel and the colour Cb, Cr of each 2×2
// pixels; it is PNG, so that what is read is the same in every version of Go.
// README.md says how the planes lie in it.
package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

const (
	side = 32 // pixels
	row  = 40 // pictures
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./trainer/dataset/handsigns SOURCE")
		os.Exit(2)
	}
	if err := run(os.Args[1], filepath.Join("trainer", "dataset", "handsigns")); err != nil {
		fmt.Fprintln(os.Stderr, "handsigns:", err)
		os.Exit(1)
	}
}

func run(source, to string) error {
	text, err := os.ReadFile(filepath.Join(source, "pictures.csv"))
	if err != nil {
		return err
	}
	list, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		return fmt.Errorf("read %s/pictures.csv: %w", source, err)
	}
	if err := joinStudents(list[1:]); err != nil {
		return fmt.Errorf("%s/pictures.csv: %w", source, err)
	}
	content, err := os.ReadFile(filepath.Join(source, "pictures.png"))
	if err != nil {
		return err
	}
	photographs, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("decode %s/pictures.png: %w", source, err)
	}
	want := image.Rect(0, 0, row*side, (len(list)-1+row-1)/row*side)
	if photographs.Bounds() != want {
		return fmt.Errorf("%s/pictures.png has %v pixels, want %v for the pictures of the list", source,
			photographs.Bounds(), want)
	}
	var pictures, names bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&pictures, planes(photographs)); err != nil {
		return err
	}
	if err := csv.NewWriter(&names).WriteAll(list); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(to, "pictures.png"), pictures.Bytes(), 0o666); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "pictures.csv"), names.Bytes(), 0o666)
}

// joinStudents numbers the students anew, in place. Where a photograph was
// taken again its number is out of order, and one student's are two or three
// runs that follow one another and are all incomplete. They become one student,
// so that no student can be both in training and in test.
func joinStudents(list [][]string) error {
	digits := map[string][]string{} // of each run
	for _, p := range list {
		if len(p) != 3 {
			return fmt.Errorf("%q: want file, digit and student", p)
		}
		digits[p[2]] = append(digits[p[2]], p[1])
	}
	complete := func(run string) bool {
		d := slices.Clone(digits[run])
		slices.Sort(d)
		return len(slices.Compact(d)) == 10
	}
	student, before := -1, ""
	for _, p := range list {
		run := p[2]
		if run != before && (before == "" || complete(run) || complete(before)) {
			student++
		}
		before = run
		p[2] = strconv.Itoa(student)
	}
	return nil
}

// planes shows Y of all pictures, and below it Cb and Cr of half the size side
// by side.
func planes(m image.Image) *image.Gray {
	w, h := m.Bounds().Dx(), m.Bounds().Dy()
	out := image.NewGray(image.Rect(0, 0, w, h+h/2))
	for y := 0; y < h; y += 2 {
		for x := 0; x < w; x += 2 {
			var sum [3]int
			for k := range 4 {
				px, py := x+k%2, y+k/2
				c := color.NRGBAModel.Convert(m.At(px, py)).(color.NRGBA)
				luma, _, _ := color.RGBToYCbCr(c.R, c.G, c.B)
				out.SetGray(px, py, color.Gray{Y: luma})
				for i, v := range []uint8{c.R, c.G, c.B} {
					sum[i] += int(v)
				}
			}
			_, cb, cr := color.RGBToYCbCr(uint8((sum[0]+2)/4), uint8((sum[1]+2)/4), uint8((sum[2]+2)/4))
			out.SetGray(x/2, h+y/2, color.Gray{Y: cb})
			out.SetGray(w/2+x/2, h+y/2, color.Gray{Y: cr})
		}
	}
	return out
}
