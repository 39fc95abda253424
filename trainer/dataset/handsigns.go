package dataset

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"slices"
	"strconv"
	"strings"
)

// Handsigns is the Sign Language Digits Dataset of Arda Mavi and Zeynep Dikle
// (arXiv:2011.08927, Apache License 2.0): photographs of hands that sign the
// digits 0 to 9. handsigns/README.md says what the embedded files contain and what
// was changed.
//
// The photographs of one student look alike, so all of them are in one split. Every
// third student is in the test split, with any options.
const (
	handsignsName  = "handsigns"
	handsignsSide  = 32 // pixels
	handsignsInRow = 40 // pictures
)

var (
	//go:embed handsigns/pictures.png
	handsignsPNG []byte
	//go:embed handsigns/pictures.csv
	handsignsCSV string
)

// signs are all pictures of handsigns.
type signs struct {
	Split
	students []int // (N)
}

func openHandsigns(o Options) (*Set, error) {
	if o.Size != handsignsSide && o.Size != handsignsSide/2 {
		return nil, fmt.Errorf("%s: size is %d: want %d or %d", o.Name, o.Size, handsignsSide/2, handsignsSide)
	}
	all := readHandsigns(o.Size)
	var trained, tested []int
	var students []int // of the training pictures
	for i, student := range all.students {
		if student%3 == 2 {
			tested = append(tested, i)
		} else {
			trained = append(trained, i)
			students = append(students, student)
		}
	}
	size := Channels * o.Size * o.Size
	files := []pictureFile{{"pictures.csv", all.Len()}} // a row for each picture
	s := &Set{Name: o.Name, Classes: digits, C: Channels, H: o.Size, W: o.Size, trainFiles: files, testFiles: files}
	if err := s.split(o, all.subset(trained, size), all.subset(tested, size), byStudent(students)); err != nil {
		return nil, err
	}
	return s, nil
}

// byStudent holds out students, drawn by seed, until each class has its share of the
// n pictures. Their other pictures are not used.
func byStudent(students []int) holding {
	return func(byClass [][]int, n int, seed uint64) ([]int, error) {
		order := slices.Compact(slices.Clone(students)) // they are in rising order
		shuffle(order, seed, streamStudents)
		rank := make(map[int]int, len(order)) // by student
		for i, student := range order {
			rank[student] = i
		}
		byRank := func(a, b int) int { return rank[students[a]] - rank[students[b]] }
		last := -1 // rank of the last student that is needed
		held := make([][]int, len(byClass))
		for class, pictures := range byClass {
			held[class] = slices.SortedStableFunc(slices.Values(pictures), byRank)
			share := n / len(byClass)
			if class < n%len(byClass) {
				share++
			}
			if share > len(pictures) {
				last = len(order)
			} else if share > 0 {
				last = max(last, rank[students[held[class][share-1]]])
			}
		}
		if last >= len(order)-1 {
			return nil, fmt.Errorf("validation is %d: want fewer, so that students are left to train on", n)
		}
		drawn := func(i int) bool { return rank[students[i]] <= last }
		for class := range byClass {
			byClass[class] = slices.DeleteFunc(byClass[class], drawn)
			held[class] = held[class][:len(held[class])-len(byClass[class])]
		}
		return take(held, n), nil
	}
}

// readHandsigns reads all pictures at a side of 32 or, averaged over 2×2, 16
// pixels. It panics if the embedded files are damaged.
func readHandsigns(side int) signs {
	list, err := csv.NewReader(strings.NewReader(handsignsCSV)).ReadAll()
	if err != nil {
		panic(err)
	}
	decoded, err := png.Decode(bytes.NewReader(handsignsPNG))
	if err != nil {
		panic(err)
	}
	planes := decoded.(*image.Gray)
	all := signs{Split: Split{Pixels: make([]byte, 0, (len(list)-1)*Channels*side*side)}}
	for i, p := range list[1:] {
		digit, err := strconv.ParseUint(p[1], 10, 16)
		if err != nil {
			panic(err)
		}
		student, err := strconv.Atoi(p[2])
		if err != nil {
			panic(err)
		}
		all.Labels = append(all.Labels, uint16(digit))
		all.students = append(all.students, student)
		all.Pixels = appendSign(all.Pixels, planes, i, side)
	}
	return all
}

// appendSign appends the i-th picture, (C, side, side).
func appendSign(pixels []byte, planes *image.Gray, i, side int) []byte {
	w, h := planes.Rect.Dx(), planes.Rect.Dy()*2/3 // of the plane of Y
	top, left := i/handsignsInRow*handsignsSide, i%handsignsInRow*handsignsSide
	var sum [Channels][handsignsSide * handsignsSide]int // over the pixels that make one
	times := handsignsSide / side
	for y := range handsignsSide {
		for x := range handsignsSide {
			cy, cx := h+(top+y)/2, (left+x)/2
			r, g, b := color.YCbCrToRGB(planes.GrayAt(left+x, top+y).Y, planes.GrayAt(cx, cy).Y,
				planes.GrayAt(w/2+cx, cy).Y)
			at := y/times*side + x/times
			for c, v := range [Channels]uint8{r, g, b} {
				sum[c][at] += int(v)
			}
		}
	}
	n := times * times
	for c := range sum {
		for _, v := range sum[c][:side*side] {
			pixels = append(pixels, uint8((v+n/2)/n))
		}
	}
	return pixels
}
