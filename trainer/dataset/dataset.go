// Package dataset holds the pictures that networks are trained and measured
// on: CIFAR-10 and CIFAR-100 in their official binary layout, and a small
// synthetic set that is generated and needs no file.
//
// Open reads a set once and splits its pictures into training, validation and
// test pictures. After Open a Set is only read, so any number of trainings
// share one. Batches are written by Set.Fill straight into the layout of the
// kernels, (blocks, H, C, W, 16) with 16 pictures innermost, normalised as
// (x/255 − mean)/std by the mean and standard deviation of each channel of the
// training split.
//
// Nothing here has random state: the order of an epoch and the crop and mirror
// of a picture are pure functions of (seed, epoch) and (seed, epoch, picture),
// so an interrupted training goes on with the pictures it would have seen.
//
// Get downloads the official archives of CIFAR
// (https://www.cs.toronto.edu/~kriz/cifar.html).
package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
)

// Channels is the number of channels of every picture: red, green, blue.
const Channels = 3

// Options says which set to open and which of its pictures to use.
type Options struct {
	// Name is "synthetic", "cifar10" or "cifar100".
	Name string
	// Dir is where the files of CIFAR lie, themselves or in the folder that
	// the official archive unpacks to; unused by the synthetic set.
	Dir string
	// Validation is how many training pictures are held out, balanced over
	// the classes.
	Validation int
	// TrainPictures bounds the training pictures left after Validation,
	// balanced over the classes; 0 is all.
	TrainPictures int
	// TestPictures bounds the test pictures, balanced over the classes; 0 is
	// all.
	TestPictures int
	// SplitSeed draws the pictures that are held out and kept. The pictures
	// of a smaller number are among those of a larger one.
	SplitSeed int
}

// Set is an opened data set. It must not be changed.
type Set struct {
	Name    string
	Classes []string // names, by label
	C, H, W int      // channels, height and width of a picture

	Train, Validation, Test Split

	// Mean and Std are of each channel over the pixels of Train, with pixels
	// scaled to 0 … 1. Std is 1 for a channel that is constant.
	Mean, Std [Channels]float32

	// Sum identifies the pictures in use: SHA-256, in hexadecimal, over the
	// geometry and over the labels and pixels of all splits.
	Sum string
}

// Split is a part of a Set.
type Split struct {
	Pixels []byte  // (N, C, H, W)
	Labels []uint8 // (N)
}

// Len returns the number of pictures.
func (s *Split) Len() int { return len(s.Labels) }

// Open reads the set that o names, checks every file of it and splits it. The
// error of a damaged file names the file, the byte and what was expected
// there; the error of missing files says how to get them.
func Open(ctx context.Context, o Options) (*Set, error) {
	switch o.Name {
	case synthetic.name:
		return openSynthetic(ctx, o)
	case cifar10.name:
		return openCIFAR(ctx, cifar10, o)
	case cifar100.name:
		return openCIFAR(ctx, cifar100, o)
	}
	return nil, fmt.Errorf("dataset %q: want %q, %q or %q", o.Name, synthetic.name, cifar10.name, cifar100.name)
}

// newSet splits the whole of a data set as o says.
func newSet(o Options, classes []string, h, w int, train, test Split) (*Set, error) {
	s := &Set{Name: o.Name, Classes: classes, C: Channels, H: h, W: w}
	held, kept, err := holdOut(train.Labels, len(classes), o)
	if err != nil {
		return nil, err
	}
	measured, err := boundTest(test.Labels, len(classes), o)
	if err != nil {
		return nil, err
	}
	size := s.C * s.H * s.W
	s.Train = train.subset(kept, size)
	s.Validation = train.subset(held, size)
	s.Test = test.subset(measured, size)
	s.Mean, s.Std = statistics(s.Train.Pixels, s.H*s.W)
	s.Sum = s.sum()
	return s, nil
}

// subset returns copies of the given pictures of size bytes each, or s itself
// if that is all of them.
func (s *Split) subset(pictures []int, size int) Split {
	if len(pictures) == s.Len() {
		return *s
	}
	sub := Split{
		Pixels: make([]byte, 0, len(pictures)*size),
		Labels: make([]uint8, 0, len(pictures)),
	}
	for _, i := range pictures {
		sub.Pixels = append(sub.Pixels, s.Pixels[i*size:(i+1)*size]...)
		sub.Labels = append(sub.Labels, s.Labels[i])
	}
	return sub
}

// statistics returns the mean and the standard deviation (of the population,
// not the sample) of each channel of pixels (N, C, plane), scaled to 0 … 1.
func statistics(pixels []byte, plane int) (mean, std [Channels]float32) {
	// Sums over counts of the 256 values are exact in integers, so the result
	// does not depend on the order of pictures or on how sums are grouped.
	var counts [Channels][256]uint64
	for c := 0; len(pixels) >= plane; c = (c + 1) % Channels {
		for _, x := range pixels[:plane] {
			counts[c][x]++
		}
		pixels = pixels[plane:]
	}
	for c := range counts {
		var n, sum, squares uint64
		for x, k := range counts[c] {
			n += k
			sum += k * uint64(x)
			squares += k * uint64(x*x)
		}
		m := float64(sum) / float64(n)
		variance := float64(squares)/float64(n) - float64(m*m)
		mean[c] = float32(m / 255)
		std[c] = float32(math.Sqrt(max(variance, 0)) / 255)
		if std[c] < 1e-6 {
			std[c] = 1
		}
	}
	return mean, std
}

func (s *Set) sum() string {
	h := sha256.New()
	number := func(n int) { h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n))) }
	number(s.C)
	number(s.H)
	number(s.W)
	number(len(s.Classes))
	for _, split := range []*Split{&s.Train, &s.Validation, &s.Test} {
		number(split.Len())
		h.Write(split.Labels)
		h.Write(split.Pixels)
	}
	return hex.EncodeToString(h.Sum(nil))
}
