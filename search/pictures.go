package search

import (
	"cmp"
	"slices"
	"strings"

	"igcsearch/space"
)

// The values of Study.Split: the split whose accuracy a figure or table shows.
const (
	SplitTest       = "test"
	SplitValidation = "validation"
)

// The values of Study.Augment.
const (
	AugmentNone = "none"
	// AugmentCropMirror zero-pads by Study.Pad pixels on each side, crops at
	// random to the old size and mirrors half of the pictures (paper,
	// Section 5.1).
	AugmentCropMirror = "crop-mirror"
	// AugmentScaleCropMirror rescales a picture of a folder so that its shorter
	// side has a random length from Study.Resize to Study.ResizeMax, crops at
	// random to Study.Size and mirrors half of the pictures (He et al., Deep
	// Residual Learning for Image Recognition, 2015, Section 3.4).
	AugmentScaleCropMirror = "scale-crop-mirror"
)

// datasets are the values of Study.Dataset.
var datasets = []string{"synthetic", "handsigns", "cifar10", "cifar100", "cifar100-coarse", "svhn", "folder"}

// SVHNValidation is the only number of pictures that Study.Validation holds
// out of SVHN: 400 of each class of its training file and 200 of each class of
// its extra file.
const SVHNValidation = 10 * (400 + 200)

// Pictures are the settings of a study that say which pictures it trains on and
// evaluates, and how they are augmented.
type Pictures struct {
	// Dataset is "synthetic", "handsigns", "cifar10", "cifar100",
	// "cifar100-coarse", "svhn" or "folder".
	Dataset string `toml:"dataset" json:"dataset"`
	// TrainPictures bounds the training pictures, class-balanced; 0 is all.
	TrainPictures int `toml:"train_pictures" json:"train_pictures"`
	// TestPictures bounds the test pictures, class-balanced; 0 is all.
	TestPictures int `toml:"test_pictures" json:"test_pictures"`
	// Validation is how many training pictures are held out, class-balanced;
	// of SVHN 0 or SVHNValidation. Of handsigns they are of students whose other
	// pictures are not used.
	Validation int `toml:"validation" json:"validation"`
	// SplitSeed draws the held-out and the bounded pictures; the same for
	// every trial of a study.
	SplitSeed int `toml:"split_seed" json:"split_seed"`
	// Split is the split that figures and tables show: SplitTest or
	// SplitValidation.
	Split string `toml:"curve" json:"curve"`
	// Augment is AugmentNone, AugmentCropMirror or, of a folder,
	// AugmentScaleCropMirror.
	Augment string `toml:"augment" json:"augment"`
	// Pad is the zero padding of AugmentCropMirror in pixels; Normalize clears
	// it for a folder, where it does nothing.
	Pad int `toml:"pad" json:"pad"`
	// Size is the side, in pixels, of the pictures of a folder or of handsigns
	// as the network gets them; of handsigns 32, or 16, which Normalize sets
	// where it is 0. It is 0 for all other data sets, whose pictures have a size.
	Size int `toml:"size" json:"size,omitempty"`
	// Resize is the length in pixels that the shorter side of a picture of a
	// folder is rescaled to before Size is cut out of its centre, and the
	// least of AugmentScaleCropMirror. Normalize makes it 256/224 of Size
	// where it is 0; other data sets have none.
	Resize int `toml:"resize" json:"resize,omitempty"`
	// ResizeMax is the largest length of AugmentScaleCropMirror, 480/224 of
	// Size where it is 0; 0 without that augmentation.
	ResizeMax int `toml:"resize_max" json:"resize_max,omitempty"`
}

// NeedsFiles reports whether the pictures are files that lie somewhere; those of
// the other data sets are part of the program.
func (p Pictures) NeedsFiles() bool { return p.Dataset != "synthetic" && p.Dataset != "handsigns" }

// normalize checks which pictures there are and how they are augmented.
func (p *Pictures) normalize(c *checker) {
	c.check(slices.Contains(datasets, p.Dataset), "dataset %q: want %s", p.Dataset, strings.Join(datasets, ", "))
	c.check(p.TrainPictures >= 0, "train_pictures %d: want 0 (all) or more", p.TrainPictures)
	c.check(p.TestPictures >= 0, "test_pictures %d: want 0 (all) or more", p.TestPictures)
	c.check(p.Validation >= 0, "validation %d: want 0 or more pictures", p.Validation)
	c.check(p.Dataset != "svhn" || p.Validation <= 0 || p.Validation == SVHNValidation,
		"validation %d: want 0 (none) or %d of svhn: 400 of each class of its training file and 200 of its extra file",
		p.Validation, SVHNValidation)
	c.check(p.Split == SplitTest || p.Split == SplitValidation, `curve %q: want "test" or "validation"`, p.Split)
	c.check(p.Split != SplitValidation || p.Validation > 0, `curve "validation" needs validation > 0 held-out pictures`)
	c.check(slices.Contains([]string{AugmentNone, AugmentCropMirror, AugmentScaleCropMirror}, p.Augment),
		`augment %q: want "none", "crop-mirror" or "scale-crop-mirror"`, p.Augment)
	c.check(p.Pad >= 0 && p.Pad <= 16, "pad %d: want 0 to 16", p.Pad)
	p.normalizeSizes(c)
}

// normalizeSizes checks and fills in what only a folder and handsigns have: the
// sizes that their pictures are rescaled and cut to.
func (p *Pictures) normalizeSizes(c *checker) {
	size := p.Size // of a set whose pictures have one size
	if p.Dataset == "handsigns" {
		p.Size, size = cmp.Or(p.Size, 16), 0
		c.check(p.Size == 16 || p.Size == 32, "size %d: want 16 or 32, the side in pixels of the pictures of handsigns",
			p.Size)
	}
	if p.Dataset != "folder" {
		c.check(p.Augment != AugmentScaleCropMirror,
			`augment "scale-crop-mirror": it is for dataset "folder", want "none" or "crop-mirror"`)
		for _, f := range []struct {
			key   string
			value int
		}{{"size", size}, {"resize", p.Resize}, {"resize_max", p.ResizeMax}} {
			c.check(f.value == 0, `%s %d: only pictures of dataset "folder" are rescaled, leave it out`, f.key, f.value)
		}
		return
	}
	p.Pad = 0
	c.check(p.Augment != AugmentCropMirror,
		`augment "crop-mirror": it is for pictures of one size, want "scale-crop-mirror" or "none" for dataset "folder"`)
	if p.Size < 8 || p.Size > 1024 {
		c.check(false, "size %d: want 8 to 1024, the side in pixels that the pictures of dataset \"folder\" get; "+
			"224 is usual", p.Size)
		return
	}
	if p.Resize == 0 {
		p.Resize = (256*p.Size + 112) / 224
	}
	c.check(p.Resize >= p.Size && p.Resize <= 8192, "resize %d: want size, %d, to 8192 pixels", p.Resize, p.Size)
	if p.Augment != AugmentScaleCropMirror {
		c.check(p.ResizeMax == 0, `resize_max %d: only augment "scale-crop-mirror" has it, leave it out`, p.ResizeMax)
		return
	}
	if p.ResizeMax == 0 {
		p.ResizeMax = (480*p.Size + 112) / 224
	}
	c.check(p.ResizeMax >= p.Resize && p.ResizeMax <= 8192, "resize_max %d: want resize, %d, to 8192 pixels",
		p.ResizeMax, p.Resize)
}

// Shape returns the shape of the pictures and the number of classes, as far as
// they are known before the pictures are read: of a folder there are 0 classes.
func (p Pictures) Shape() (in space.Shape, classes int) {
	classes = map[string]int{"synthetic": 10, "handsigns": 10, "cifar10": 10, "cifar100": 100, "cifar100-coarse": 20,
		"svhn": 10}[p.Dataset]
	side := cmp.Or(p.Size, 32)
	if p.Dataset == "synthetic" {
		side = 16
	}
	return space.Shape{C: 3, H: side, W: side}, classes
}
