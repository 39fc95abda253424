// Package search runs studies. A Study asks which networks are the most accurate: which pair (L, M)
// under a parameter budget, or which of some listed networks. A Trial trains one of the networks
// from one seed. Package space explains the pairs, L, M, S and the parameters.
//
// A Strategy decides which trials are trained, and up to which epoch. A Dispatch gives these trials
// to workers: each worker gets a Claim, which is an attempt that has begun. A Runner has several
// workers in one process; any number of processes can share a study. Predict says how long a study
// still takes.
//
// Trainer and Store are the interfaces to the outside: the package contains no database, no device
// and no file format.
package search

import (
	"errors"
	"fmt"
	"regexp"
)

// Study holds the settings of one study, in the order of a study file. Fingerprint says which of
// them make it another study.
type Study struct {
	// Name identifies the study in a database. It has 1 to 100 letters, digits, '-', '_' and '.'.
	Name string `toml:"name" json:"name"`
	// Title is one line for people to read, shown beside the name.
	Title string `toml:"title" json:"title,omitempty"`

	Pictures
	Design
	Recipe
	// Axes are the settings of the recipe for which the study has a list of values. A study file has
	// the list in place of the setting's value.
	Axes Axes `toml:"-" json:"axes,omitempty"`
	Selection

	// DataSum is a checksum of the pictures. The trainer's data reader sets it; a study file
	// cannot.
	DataSum string `toml:"-" json:"data_sum,omitempty"`
	// Unreadable is the number of pictures in a folder that are left out because they cannot be
	// read. The trainer's data reader sets it too.
	Unreadable int `toml:"-" json:"unreadable,omitempty"`

	Execution
}

// Default returns the paper's protocol for CIFAR (Section 5.2) with the network of Figure 3. It
// leaves Name, Dataset, and Budget or Pairs for the caller to set.
func Default() Study {
	return Study{
		Pictures: Pictures{Split: SplitTest, Augment: AugmentCropMirror, Pad: 4},
		Design:   Design{Kernel: 9, Tolerance: 0.024, Blocks: 6, Seeds: FirstSeeds(5)},
		Recipe: Recipe{Epochs: 400, Batch: 64, LearningRate: 0.1, Drops: []float64{0.5, 0.75, 0.875},
			Momentum: 0.9, WeightDecay: 1e-4, WeightDecayOn: DecayAll, BNPictures: 2048, EvaluateEvery: 1},
		Selection: Selection{Halving: Halving{Reduction: 3, Systems: 64}, Race: Race{Alpha: 0.05, Systems: 64},
			Peak: Peak{Margin: 0.3, Confidence: 0.95, Structure: true, Systems: 64, Trainings: 120}},
		Execution: Execution{RetryCrashed: 1, RetryTimeout: 1, RetryMemory: 1, StopAfter: 5,
			KeepCheckpoints: true, CheckpointQuota: DefaultCheckpointQuota},
	}
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// CheckName returns an error if a study cannot have the name.
func CheckName(name string) error {
	if !nameRE.MatchString(name) {
		return fmt.Errorf("name %q: want 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit",
			name)
	}
	return nil
}

// Normalize checks the settings and returns them in the form that is stored and hashed. It fills in
// defaults and clears settings that have no effect, as the comments of the fields say. So studies
// that differ only in such settings have the same form. The error joins one error for each wrong
// setting, which begins with the setting's key.
func (s Study) Normalize() (Study, error) {
	var c checker
	if err := CheckName(s.Name); err != nil {
		c.errs = append(c.errs, err)
	}
	s.Pictures.normalize(&c)
	bnPictures := s.BNPictures
	s.Recipe.normalize(&c)
	if s.Axes.Has("batch") && s.BNStatistics != "" {
		s.BNPictures = bnPictures // At raises it to the batch of each trial
	}
	s.normalizeAxes(&c)
	s.Selection.normalize(&c, s)
	s.Execution.normalize(&c, s)
	s.Design.normalize(&c, s)
	return s, errors.Join(c.errs...)
}

// checker collects an error for each wrong setting of a study.
type checker struct{ errs []error }

// check adds an error if ok is false.
func (c *checker) check(ok bool, format string, a ...any) {
	if !ok {
		c.errs = append(c.errs, fmt.Errorf(format, a...))
	}
}
