// Package dataset holds the pictures that networks are trained and measured
// on: CIFAR-10 and CIFAR-100 in their official files, binary or pickled, SVHN,
// folders of JPEG and PNG pictures such as ImageNet's, and two sets that need no file: photographs
// of hand signs, which are part of the program, and synthetic pictures, which
// are generated.
//
// Open reads a set once and splits its pictures into training, validation and
// test pictures. After Open a Set does not change, so any number of trainings can
// share it. Set.Batches writes batches in the layout of the kernels, (blocks, H,
// C, W, 16) with 16 pictures innermost, normalised as (x/255 − mean)/std by the
// mean and standard deviation of each channel of the training split. The pictures
// of a folder are not kept in memory: Batches decodes them ahead of their use.
//
// There is no random state: the order of an epoch and the crop and mirror of a
// picture are pure functions of (seed, epoch) and (seed, epoch, picture). So an
// interrupted training continues with the same pictures.
//
// Get downloads the official files of CIFAR
// (https://www.cs.toronto.edu/~kriz/cifar.html) and SVHN
// (http://ufldl.stanford.edu/housenumbers).
package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
)

// Channels is the number of channels of every picture: red, green, blue.
const Channels = 3

// Options says which set to open and which of its pictures to use.
type Options struct {
	// Name is "synthetic", "handsigns", "cifar10", "cifar100",
	// "cifar100-coarse", "svhn" or "folder".
	Name string
	// Dir holds the files of CIFAR and SVHN, or the folder with them that Get
	// makes. Of a set in a folder it holds train and test. synthetic and
	// handsigns do not use it.
	Dir string
	// Validation is how many training pictures are held out, balanced over
	// the classes. For SVHN it is 0 or 6000. For handsigns the other pictures of
	// the same students are not used.
	Validation int
	// TrainPictures bounds the training pictures left after Validation,
	// balanced over the classes; 0 is all.
	TrainPictures int
	// TestPictures bounds the test pictures, balanced over the classes; 0 is
	// all.
	TestPictures int
	// SplitSeed draws the pictures that are held out and kept. A larger number of
	// pictures includes those of a smaller one.
	SplitSeed int
	// SplitPerSeed is for Set.OfSeed: each seed has a split of its own.
	SplitPerSeed bool
	// Size is the side of the pictures in pixels: 16 or 32 for handsigns, any
	// number for a folder. Other sets have one size and do not use it. Resize ≥
	// Size is for a folder: the shorter side of a picture is rescaled to it before
	// the centre is cut out.
	Size, Resize int
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
	// geometry and over the labels and pixels of all splits. For a folder it is
	// over the checksums of the files, not over pixels. With SplitPerSeed it is the
	// same for all seeds: all training pictures count as one split.
	Sum string

	// Unreadable are the pictures of a folder that are left out because they cannot
	// be read. Passed are its other files.
	Unreadable, Passed []LeftOut

	// Unofficial names the files of CIFAR or SVHN whose checksums are not those of the
	// published files.
	Unofficial []string

	trainFiles, testFiles []pictureFile

	folder *folder // nil: the pixels are in memory
	draws  *draws  // nil: there is one split
}

// Split is a part of a Set.
type Split struct {
	// Pixels are K pictures (K, C, H, W); nil if the set is a folder. Picture i of
	// the split lies at At(i). Those of other splits may lie beside it.
	Pixels []byte
	Labels []uint16 // (N)

	at      []int32    // (N), see At; nil: picture i lies at i, and K is N
	all     []uint16   // (K), see PixelLabels; nil: Labels
	numbers []int32    // (N), see Origin.Number; nil: i
	files   []*picture // (N), if the set is a folder
}

// Len returns the number of pictures.
func (s *Split) Len() int { return len(s.Labels) }

// At returns the place of picture i in Pixels.
func (s *Split) At(i int) int {
	if s.at == nil {
		return i
	}
	return int(s.at[i])
}

// PixelLabels returns the labels of all pictures in Pixels, (K).
func (s *Split) PixelLabels() []uint16 {
	if s.all == nil {
		return s.Labels
	}
	return s.all
}

// number returns the Origin.Number of picture i.
func (s *Split) number(i int) int {
	if s.numbers == nil {
		return i
	}
	return int(s.numbers[i])
}

// MissingError says that all or some files of a set were not found.
type MissingError struct {
	Err error // says what is missing; wraps fs.ErrNotExist
	// Get is the name of the set for the function Get; "" if Get cannot download
	// it.
	Get string
	// Packed says that the official archive is there, which Get unpacks.
	Packed bool
	// Fetches says what Get would download if some files are missing: "a whole
	// set". It is "" if all are missing.
	Fetches string
}

func (e *MissingError) Error() string { return e.Err.Error() }
func (e *MissingError) Unwrap() error { return e.Err }

// missing returns a MissingError if err says that a file does not exist, else err.
func missing(err error, get, fetches string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &MissingError{Err: err, Get: get, Fetches: fetches}
	}
	return err
}

// Open reads the set that o names, checks every file of it and splits it. The
// error of a damaged file names the file, the byte and what was expected
// there. The error of missing files is a *MissingError.
func Open(ctx context.Context, o Options) (*Set, error) {
	switch o.Name {
	case synthetic.name:
		return openSynthetic(ctx, o)
	case handsignsName:
		return openHandsigns(o)
	case cifar10.name:
		return openCIFAR(ctx, cifar10, o)
	case cifar100.name:
		return openCIFAR(ctx, cifar100, o)
	case cifar100Coarse.name:
		return openCIFAR(ctx, cifar100Coarse, o)
	case svhn.name:
		return svhn.open(ctx, o)
	case folderName:
		return openFolder(ctx, o)
	}
	return nil, fmt.Errorf("dataset %q: want one of %q", o.Name,
		[]string{synthetic.name, handsignsName, cifar10.name, cifar100.name, cifar100Coarse.name, svhn.name,
			folderName})
}

// Sizes returns how many pictures the splits of CIFAR or SVHN have with valid
// options, without reading the files, which are always the same.
func Sizes(o Options) (train, validation, test int) {
	switch o.Name {
	case svhn.name:
		train, test = svhn.train.pictures+svhn.extra.pictures, svhn.test.pictures
	case cifar10.name:
		train, test = len(cifar10.train)*cifar10.trainRecords, cifar10.testRecords
	case cifar100.name, cifar100Coarse.name:
		train, test = len(cifar100.train)*cifar100.trainRecords, cifar100.testRecords
	}
	return cmp.Or(o.TrainPictures, train-o.Validation), o.Validation, cmp.Or(o.TestPictures, test)
}

// split completes a set that has everything but splits and statistics: it splits
// all its pictures as o says. hold draws those that are held out. split may change
// train and test.
func (s *Set) split(o Options, train, test Split, hold holding) error {
	measured, err := boundTest(test.Labels, len(s.Classes), o)
	if err != nil {
		return err
	}
	s.Test = test.shrink(measured, s.size())
	if o.SplitPerSeed {
		return s.splitPerSeed(o, train, hold)
	}
	held, kept, err := holdOut(train.Labels, len(s.Classes), o, o.SplitSeed, hold)
	if err != nil {
		return err
	}
	s.Validation = train.subset(held, s.size())
	s.Train = train.shrink(kept, s.size())
	s.Mean, s.Std = s.statistics()
	s.Sum = s.SplitSum()
	return nil
}

// size is the bytes of a picture.
func (s *Set) size() int { return s.C * s.H * s.W }

// subset returns copies of the given pictures of size bytes each.
func (s *Split) subset(pictures []int, size int) Split {
	return s.move(Split{
		Pixels: make([]byte, 0, len(pictures)*min(size, len(s.Pixels))),
		Labels: make([]uint16, 0, len(pictures)),
	}, pictures, size)
}

// shrink is like subset. But if most pictures are kept, it moves them together and
// s becomes unusable: a second copy of SVHN would be 1.9 GB.
func (s *Split) shrink(pictures []int, size int) Split {
	switch {
	case len(pictures) == s.Len():
		return *s
	case 2*len(pictures) > s.Len():
		// The numbers rise, so no picture is overwritten before it moves.
		return s.move(Split{Pixels: s.Pixels[:0], Labels: s.Labels[:0], numbers: s.numbers[:0], files: s.files[:0]},
			pictures, size)
	}
	return s.subset(pictures, size)
}

func (s *Split) move(to Split, pictures []int, size int) Split {
	for _, i := range pictures {
		to.Labels = append(to.Labels, s.Labels[i])
		to.numbers = append(to.numbers, int32(s.number(i)))
		if s.files != nil {
			to.files = append(to.files, s.files[i])
			continue
		}
		to.Pixels = append(to.Pixels, s.Pixels[i*size:(i+1)*size]...)
	}
	return to
}

// pictures are the pixels of the split's pictures in their order, as pieces of whole
// pictures of size bytes.
func (s *Split) pictures(size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if s.at == nil {
			yield(s.Pixels)
			return
		}
		for _, at := range s.at {
			if !yield(s.Pixels[int(at)*size:][:size]) {
				return
			}
		}
	}
}

// statistics returns the mean and the standard deviation (of the population, not the
// sample) of each channel of the training pictures, scaled to 0 … 1.
func (s *Set) statistics() (mean, std [Channels]float32) {
	if s.folder != nil {
		return s.folder.statistics(s.Train.files)
	}
	// Sums over counts of the 256 values are exact in integers, so the result
	// does not depend on the order of pictures or on how sums are grouped.
	var counts [Channels][256]uint64
	plane := s.H * s.W
	for pixels := range s.Train.pictures(s.size()) {
		for c := 0; len(pixels) >= plane; c = (c + 1) % Channels {
			for _, x := range pixels[:plane] {
				counts[c][x]++
			}
			pixels = pixels[plane:]
		}
	}
	for c := range counts {
		var n, sum, squares uint64
		for x, k := range counts[c] {
			n += k
			sum += k * uint64(x)
			squares += k * uint64(x*x)
		}
		mean[c], std[c] = moments(n, sum, squares)
	}
	return mean, std
}

// moments returns mean and standard deviation of n bytes, scaled to 0 … 1,
// from their sum and the sum of their squares.
func moments(n, sum, squares uint64) (mean, std float32) {
	m := float64(sum) / float64(n)
	variance := float64(squares)/float64(n) - float64(m*m)
	mean = float32(m / 255)
	std = float32(math.Sqrt(max(variance, 0)) / 255)
	if std < 1e-6 {
		std = 1
	}
	return mean, std
}

// SplitSum is SHA-256, in hexadecimal, over the geometry and over the labels and
// pixels of the three splits, each number as eight bytes with the lowest first. It
// is Sum unless the split is of a seed. docs/study-files.md says how others compute
// it.
func (s *Set) SplitSum() string {
	h := sha256.New()
	number := func(n int) { h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n))) }
	number(s.C)
	number(s.H)
	number(s.W)
	number(len(s.Classes))
	for _, split := range []*Split{&s.Train, &s.Validation, &s.Test} {
		number(split.Len())
		for _, label := range split.Labels {
			// One byte if that is enough. It must stay so: sums are stored.
			if len(s.Classes) <= 256 {
				h.Write([]byte{byte(label)})
			} else {
				h.Write(binary.LittleEndian.AppendUint16(nil, label))
			}
		}
		for pixels := range split.pictures(s.size()) {
			h.Write(pixels)
		}
		for _, p := range split.files {
			io.WriteString(h, p.Sum)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
