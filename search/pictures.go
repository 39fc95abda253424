package search

import (
	"cmp"
	"slices"
	"strings"

	"igcsearch/space"
)

// These are the splits. The values of Study.Split are SplitTest and SplitValidation.
const (
	SplitTest       = "test"
	SplitValidation = "validation"
	SplitTrain      = "train" // the pictures that an epoch trained on
)

// These are the values of Study.Augment.
const (
	AugmentNone = "none"
	// AugmentCropMirror adds a border of Study.Pad zero pixels, cuts out the old size at a random
	// place, and mirrors half of the pictures (paper, Section 5.1).
	AugmentCropMirror = "crop-mirror"
	// AugmentScaleCropMirror is for a folder. It rescales a picture so that its shorter side has a
	// random length from Study.Resize to Study.ResizeMax, cuts out Study.Size at a random place,
	// and mirrors half of the pictures (He et al., Deep Residual Learning for Image Recognition,
	// 2015, Section 3.4).
	AugmentScaleCropMirror = "scale-crop-mirror"
)

// datasets are the values of Study.Dataset.
var datasets = []string{"synthetic", "handsigns", "cifar10", "cifar100", "cifar100-coarse", "svhn", "folder"}

// SVHNValidation is the only number of pictures that Study.Validation can hold out of SVHN: 400 of
// each class from its training file, and 200 of each class from its extra file.
const SVHNValidation = 10 * (400 + 200)

// Pictures holds the settings that say on which pictures a study trains and evaluates, and how the
// training pictures are augmented.
type Pictures struct {
	// Dataset is "synthetic", "handsigns", "cifar10", "cifar100", "cifar100-coarse", "svhn" or
	// "folder".
	Dataset string `toml:"dataset" json:"dataset"`
	// TrainPictures and TestPictures are the largest numbers of pictures in the training and the
	// test split, with equally many of each class. 0 means all pictures.
	TrainPictures int `toml:"train_pictures" json:"train_pictures"`
	TestPictures  int `toml:"test_pictures" json:"test_pictures"`
	// Validation is the number of training pictures that are held out as the validation split, with
	// equally many of each class. For svhn it is 0 or SVHNValidation. For handsigns the held-out
	// pictures come from students whose other pictures are left out.
	Validation int `toml:"validation" json:"validation"`
	// SplitSeed is the seed by which the held-out pictures and those within the bounds are drawn.
	// It is the same for all trials of a study unless SplitPerSeed is set.
	SplitSeed int `toml:"split_seed" json:"split_seed"`
	// SplitPerSeed draws the validation and the training pictures of each trial by SplitSeed plus
	// the trial's seed, so that the spread over the seeds includes the draw of the pictures
	// (Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, 2021). Trials of
	// one seed have the same pictures, and all trials the same test pictures.
	SplitPerSeed bool `toml:"split_per_seed" json:"split_per_seed,omitempty"`
	// Split is the split whose accuracy figures and tables show: SplitTest or SplitValidation.
	Split string `toml:"curve" json:"curve"`
	// Augment is AugmentNone or, for a folder, AugmentScaleCropMirror, and for all other data sets
	// AugmentCropMirror.
	Augment string `toml:"augment" json:"augment"`
	// Pad is the border that AugmentCropMirror adds on each side, in pixels. Normalize clears it
	// for a folder.
	Pad int `toml:"pad" json:"pad"`
	// Size is the side, in pixels, of the pictures that the network reads. It is from 8 to 1,024
	// for a folder, and 16 or 32 for handsigns, where Normalize changes 0 to 16. It is 0 for other
	// data sets, because all their pictures have one size.
	Size int `toml:"size" json:"size,omitempty"`
	// Resize is for a folder. A picture is rescaled until its shorter side has this length, in
	// pixels, and then its centre is cut out with the side Size. For AugmentScaleCropMirror it is
	// the smallest length in training. Normalize changes 0 to 256/224 of Size.
	Resize int `toml:"resize" json:"resize,omitempty"`
	// ResizeMax is the largest length in training for AugmentScaleCropMirror, in pixels, and 0
	// without that augmentation. Normalize changes 0 to 480/224 of Size.
	ResizeMax int `toml:"resize_max" json:"resize_max,omitempty"`
}

// NeedsFiles reports whether the pictures are in files that the user provides. The pictures of the
// other data sets are part of the program.
func (p Pictures) NeedsFiles() bool { return p.Dataset != "synthetic" && p.Dataset != "handsigns" }

// normalize checks which pictures are used and how they are augmented.
func (p *Pictures) normalize(c *checker) {
	c.check(slices.Contains(datasets, p.Dataset), "dataset %q: want %s", p.Dataset, strings.Join(datasets, ", "))
	c.check(p.TrainPictures >= 0, "train_pictures %d: want 0 (all) or more", p.TrainPictures)
	c.check(p.TestPictures >= 0, "test_pictures %d: want 0 (all) or more", p.TestPictures)
	c.check(p.Validation >= 0, "validation %d: want 0 or more pictures", p.Validation)
	c.check(p.Dataset != "svhn" || p.Validation <= 0 || p.Validation == SVHNValidation,
		"validation %d: want 0 (none) or %d of svhn: 400 of each class of its training file and 200 of its extra file",
		p.Validation, SVHNValidation)
	c.check(!p.SplitPerSeed || p.Validation > 0 || p.TrainPictures > 0,
		"split_per_seed: there is nothing to draw, want validation > 0 held-out pictures or train_pictures > 0")
	c.check(p.Split == SplitTest || p.Split == SplitValidation, `curve %q: want "test" or "validation"`, p.Split)
	c.check(p.Split != SplitValidation || p.Validation > 0, `curve "validation" needs validation > 0 held-out pictures`)
	c.check(slices.Contains([]string{AugmentNone, AugmentCropMirror, AugmentScaleCropMirror}, p.Augment),
		`augment %q: want "none", "crop-mirror" or "scale-crop-mirror"`, p.Augment)
	c.check(p.Pad >= 0 && p.Pad <= 16, "pad %d: want 0 to 16", p.Pad)
	p.normalizeSizes(c)
}

// normalizeSizes checks Size, Resize and ResizeMax, which only a folder and handsigns use, and
// fills in their defaults.
func (p *Pictures) normalizeSizes(c *checker) {
	size := p.Size // must be 0, except for handsigns
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
		`augment "crop-mirror": it is for pictures of one size, `+
			`want "scale-crop-mirror" or "none" for dataset "folder"`)
	if p.Size < 8 || p.Size > 1024 {
		c.check(false, `size %d: want 8 to 1024, the side in pixels that the pictures of dataset "folder" get; `+
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

// Shape returns the shape of the pictures and the number of classes without reading the pictures.
// The classes of a folder are not known then, so it returns 0 for them.
func (p Pictures) Shape() (in space.Shape, classes int) {
	classes = map[string]int{"synthetic": 10, "handsigns": 10, "cifar10": 10, "cifar100": 100, "cifar100-coarse": 20,
		"svhn": 10}[p.Dataset]
	side := cmp.Or(p.Size, 32)
	if p.Dataset == "synthetic" {
		side = 16
	}
	return space.Shape{C: 3, H: side, W: side}, classes
}
