package trainer

import (
	"context"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/kernel"
)

// dataset writes the layout that kernel reads, and does not import it.
var _ [kernel.Lanes]struct{} = [dataset.Lanes]struct{}{}

// Data describes the pictures of a study.
type Data struct {
	Shape                   space.Shape
	Classes                 []string
	Train, Validation, Test int    // pictures; those of seed 0 where each seed has a split of its own
	Sum                     string // identifies the pictures; Study.DataSum
	// Unreadable are the pictures that are left out because they cannot be read;
	// Study.Unreadable is how many. Passed are other files that are no pictures.
	Unreadable, Passed []dataset.LeftOut
	// Unofficial names the files of CIFAR or SVHN that are not the published ones.
	Unofficial []string
}

// Load reads the pictures of a study, once.
func (t *Trainer) Load(ctx context.Context, s search.Study) (Data, error) {
	set, err := t.set(ctx, s)
	if err != nil {
		return Data{}, err
	}
	return Data{
		Shape: space.Shape{C: set.C, H: set.H, W: set.W}, Classes: set.Classes,
		Train: set.Train.Len(), Validation: set.Validation.Len(), Test: set.Test.Len(), Sum: set.Sum,
		Unreadable: set.Unreadable, Passed: set.Passed, Unofficial: set.Unofficial,
	}, nil
}

// Expected describes the pictures of a study of CIFAR or SVHN without reading their
// files: the checksum is "", and the classes have no names.
func Expected(s search.Study) Data {
	in, classes := s.Shape()
	d := Data{Shape: in, Classes: make([]string, classes)}
	d.Train, d.Validation, d.Test = dataset.Sizes(options(s))
	return d
}

// options are those of the set of a study, without the folder.
func options(s search.Study) dataset.Options {
	return dataset.Options{Name: s.Dataset, TrainPictures: s.TrainPictures, TestPictures: s.TestPictures,
		Validation: s.Validation, SplitSeed: s.SplitSeed, SplitPerSeed: s.SplitPerSeed, Size: s.Size, Resize: s.Resize}
}

// Pictures returns the pictures of a study on which a trial of the seed trains and is
// evaluated.
func (t *Trainer) Pictures(ctx context.Context, s search.Study, seed int) (*dataset.Set, error) {
	set, err := t.set(ctx, s)
	if err != nil {
		return nil, err
	}
	return set.OfSeed(seed)
}

// set opens the pictures of a study, with the split of seed 0 where each seed has one.
func (t *Trainer) set(ctx context.Context, s search.Study) (*dataset.Set, error) {
	o := options(s)
	o.Dir = t.dataDir
	t.mu.Lock()
	defer t.mu.Unlock()
	if set := t.sets[o]; set != nil {
		return set, nil
	}
	set, err := dataset.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	t.sets[o] = set
	return set, nil
}
