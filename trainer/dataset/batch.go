package dataset

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
)

// Lanes is how many pictures lie innermost in the layout of a batch.
const Lanes = 16

// Each use of random numbers has a stream of its own, so that, for example, the
// order of an epoch is independent of its crops.
const (
	streamOrder uint64 = 1 + iota
	streamAugment
	streamTrain // + class·256
	streamTest  // + class·256
	streamSynthetic
	streamStudents
)

// Order returns the order in which an epoch visits n pictures: a permutation
// of 0 … n−1 that depends on the arguments only.
func Order(n int, seed, epoch uint64) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	shuffle(order, mix(seed, epoch), streamOrder)
	return order
}

// shuffle permutes list by the random numbers of (seed, stream). It implements the
// Fisher–Yates algorithm on PCG, whose numbers are fixed; rand.Rand promises no
// algorithm for Shuffle and Perm.
func shuffle(list []int, seed, stream uint64) {
	g := generator(seed, stream)
	for i := len(list) - 1; i > 0; i-- {
		j := below(&g, i+1)
		list[i], list[j] = list[j], list[i]
	}
}

func generator(seed, stream uint64) rand.PCG {
	var g rand.PCG
	g.Seed(mix(seed, stream), stream)
	return g
}

// below returns a number in 0 … n−1. Multiply and shift prefers some numbers
// by n/2⁶⁴ at most.
func below(g *rand.PCG, n int) int {
	hi, _ := bits.Mul64(g.Uint64(), uint64(n))
	return int(hi)
}

// mix makes one seed from two: it applies the finaliser of SplitMix64 (Steele, Lea
// and Flood, 2014) once to each.
func mix(a, b uint64) uint64 {
	return finalise(finalise(a+0x9e3779b97f4a7c15) ^ b)
}

func finalise(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Augmentation is how training pictures are varied.
type Augmentation struct {
	// Pad is how many zeros (after normalisation) are put around a picture
	// before a random part of the old size is cut out; 0 means no crop.
	Pad int
	// Mirror exchanges left and right in half of the pictures.
	Mirror bool
	// ResizeMax is for a folder: the shorter side of a picture is rescaled to a
	// random length, Options.Resize … ResizeMax pixels, and a random part of the
	// size of the set is cut out. Other sets have 0, and a folder has no Pad.
	ResizeMax int
}

// View says how a picture is shown: the pixel at (y, x) is that of the picture at
// (y+Dy, x+Dx), or (y+Dy, W−1−x+Dx) if mirrored. Pixels outside are zero.
type View struct {
	Dy, Dx int
	Mirror bool
}

// View draws the view of one picture in one epoch. If a is nil, the picture is not
// changed.
func (a *Augmentation) View(picture int, seed, epoch uint64) View {
	if a == nil {
		return View{}
	}
	g := generator(mix(mix(seed, epoch), uint64(picture)), streamAugment)
	// All three are always drawn, so that without one the others stay the same.
	side := 2*a.Pad + 1
	v := View{Dy: below(&g, side) - a.Pad, Dx: below(&g, side) - a.Pad}
	v.Mirror = g.Uint64()>>63 == 1 && a.Mirror
	return v
}

// Fill writes a batch in the layout of the kernels: dst is
// (⌈len(pictures)/16⌉, H, C, W, 16), and picture i of the batch is lane i%16
// of block i/16. Values are (x/255 − Mean)/Std of the channel. Lanes without a
// picture are zero. The rest of dst does not change.
//
// If aug is nil, the pictures are not augmented. Otherwise the crop and mirror of
// a picture depend only on seed, epoch and its index in the split, not on its
// place in the batch. Fill does not allocate and may be called concurrently. It
// panics if dst is too short, if a picture is not in the split, or if the set is a
// folder, whose pictures only Batches reads.
func (s *Set) Fill(dst []float32, split *Split, pictures []int, aug *Augmentation, seed, epoch uint64) {
	rowLen := s.W * Lanes
	blockLen := s.C * s.H * rowLen
	blocks := (len(pictures) + Lanes - 1) / Lanes
	if len(dst) < blocks*blockLen {
		panic(fmt.Sprintf("dataset: Fill has %d values for %d pictures, want %d", len(dst), len(pictures),
			blocks*blockLen))
	}
	table := s.Table()
	for b := range blocks {
		batch := pictures[b*Lanes : min((b+1)*Lanes, len(pictures))]
		var views [Lanes]View
		var places [Lanes]int
		for lane, picture := range batch {
			views[lane], places[lane] = aug.View(picture, seed, epoch), split.At(picture)
		}
		// Row by row for all lanes: the row of 16 pictures stays in the first
		// cache while each lane writes every 16th value of it.
		for y := range s.H {
			for c := range s.C {
				row := dst[:rowLen]
				dst = dst[rowLen:]
				clear(row)
				for lane := range batch {
					v := views[lane]
					if y+v.Dy < 0 || y+v.Dy >= s.H {
						continue
					}
					at := ((places[lane]*s.C+c)*s.H + y + v.Dy) * s.W
					fillRow(row[lane:], split.Pixels[at:at+s.W], &table[c], v)
				}
			}
		}
	}
}

// fillRow writes the row of one lane, dst[x·16] for each x of the row that
// shows a pixel of src.
func fillRow(dst []float32, src []byte, table *[256]float32, v View) {
	// Before the mirror, x shows src[x+dx]: x from lo to hi−1.
	lo := max(0, -v.Dx)
	hi := max(min(len(src), len(src)-v.Dx), lo)
	first, step := lo, Lanes
	if v.Mirror {
		first, step = len(src)-1-lo, -Lanes
	}
	if lo == hi {
		return
	}
	at := first * Lanes
	for _, x := range src[lo+v.Dx : hi+v.Dx] {
		dst[at] = table[x]
		at += step
	}
}

// Table returns the normalised value of each byte in each channel.
func (s *Set) Table() (table [Channels][256]float32) {
	for c := range table {
		mean, scale := float64(s.Mean[c]), 1/float64(s.Std[c])
		for x := range table[c] {
			table[c][x] = float32((float64(x)/255 - mean) * scale)
		}
	}
	return table
}
