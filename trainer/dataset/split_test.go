package dataset_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"igcsearch/trainer/dataset"
)

// opener opens a set with options that are added to those of the set.
type opener func(validation, splitSeed int, perSeed bool) (*dataset.Set, error)

// openers are sets of all kinds: in memory with and without files, by student, and in a folder.
func openers(t *testing.T) map[string]opener {
	ctx := context.Background()
	cifar, cifarDir := dataset.Small("cifar100", 300, 40), t.TempDir()
	write(t, cifarDir, files(cifar, 300, 40))
	svhn, svhnDir := dataset.SmallSVHN(50, 40, 20, 2, 1), t.TempDir()
	write(t, svhnDir, svhnFiles())
	folder := t.TempDir()
	writeFolder(t, folder, 9)
	with := func(open func(dataset.Options) (*dataset.Set, error), o dataset.Options) opener {
		return func(validation, splitSeed int, perSeed bool) (*dataset.Set, error) {
			o := o
			o.Validation, o.SplitSeed, o.SplitPerSeed = validation, splitSeed, perSeed
			return open(o)
		}
	}
	byName := func(o dataset.Options) (*dataset.Set, error) { return dataset.Open(ctx, o) }
	return map[string]opener{
		"synthetic": with(byName, dataset.Options{Name: "synthetic"}),
		"handsigns": with(byName, dataset.Options{Name: "handsigns", Size: 16}),
		"cifar100": with(func(o dataset.Options) (*dataset.Set, error) { return cifar.Open(ctx, o) },
			dataset.Options{Dir: cifarDir, TrainPictures: 150}),
		"svhn":   with(func(o dataset.Options) (*dataset.Set, error) { return svhn.Open(ctx, o) }, dataset.Options{Dir: svhnDir}),
		"folder": with(folderOf, dataset.Options{Dir: folder}),
	}
}

// TestSplitPerSeed: the split of a seed is the one that Open draws by a split seed that is larger by it, in every bit that a
// training sees, and all seeds share the pixels.
func TestSplitPerSeed(t *testing.T) {
	t.Parallel()
	held := map[string]int{"synthetic": 300, "handsigns": 250, "cifar100": 100, "svhn": 30, "folder": 6}
	for name, open := range openers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, err := open(held[name], 3, true)
			if err != nil {
				t.Fatal(err)
			}
			whole, err := open(0, 3, false)
			if err != nil {
				t.Fatal(err)
			}
			if name != "cifar100" && base.Sum != whole.Sum { // which has a bound on the training pictures
				t.Errorf("the sum is %s, want that of all training pictures, %s", base.Sum, whole.Sum)
			}
			sums := map[string]bool{}
			var wg sync.WaitGroup
			sets := make([]*dataset.Set, 4)
			for seed := range sets {
				wg.Go(func() {
					set, err := base.OfSeed(seed)
					if err != nil {
						t.Error(err)
					}
					sets[seed] = set
				})
			}
			wg.Wait()
			for seed, s := range sets {
				want, err := open(held[name], 3+seed, false)
				if err != nil {
					t.Fatal(err)
				}
				if again, _ := base.OfSeed(seed); again != s {
					t.Errorf("seed %d: another set at the second call", seed)
				}
				if s.Sum != base.Sum || s.SplitSum() != want.Sum || want.SplitSum() != want.Sum {
					t.Errorf("seed %d: the sums are %s and %s, want %s and %s", seed, s.Sum, s.SplitSum(), base.Sum, want.Sum)
				}
				if s.Mean != want.Mean || s.Std != want.Std {
					t.Errorf("seed %d: mean %v and std %v, want %v and %v", seed, s.Mean, s.Std, want.Mean, want.Std)
				}
				aug := &dataset.Augmentation{Pad: 2, Mirror: true}
				if name == "folder" {
					aug = &dataset.Augmentation{ResizeMax: 20, Mirror: true}
				}
				for k, split := range splits(s) {
					other := splits(want)[k]
					x, labels := epoch(t, s, split, 20, aug, 7, 2)
					wantX, wantLabels := epoch(t, want, other, 20, aug, 7, 2)
					if !slices.Equal(x, wantX) || !slices.Equal(labels, wantLabels) {
						t.Errorf("seed %d, split %d: other pictures than with split_seed %d", seed, k, 3+seed)
					}
					for i := range split.Labels {
						if s.Origin(split, i) != want.Origin(other, i) {
							t.Fatalf("seed %d, split %d: picture %d is %+v, want %+v", seed, k, i, s.Origin(split, i),
								want.Origin(other, i))
						}
					}
				}
				if name != "folder" && (&s.Train.Pixels[0] != &base.Train.Pixels[0] ||
					&s.Validation.Pixels[0] != &base.Train.Pixels[0] || &s.Test.Pixels[0] != &base.Test.Pixels[0]) {
					t.Errorf("seed %d has pixels of its own", seed)
				}
				sums[s.SplitSum()] = true
			}
			if len(sums) != len(sets) {
				t.Errorf("%d seeds have %d splits", len(sets), len(sums))
			}
		})
	}
}

func splits(s *dataset.Set) [3]*dataset.Split {
	return [3]*dataset.Split{&s.Train, &s.Validation, &s.Test}
}

func TestSetWithOneSplit(t *testing.T) {
	t.Parallel()
	s, err := dataset.Open(context.Background(), dataset.Options{Name: "synthetic", Validation: 20})
	if err != nil {
		t.Fatal(err)
	}
	if of, err := s.OfSeed(5); of != s || err != nil {
		t.Errorf("seed 5 has another set, %v", err)
	}
}

// TestSplitOfASeedThatCannotBeDrawn: students have different numbers of pictures, so more of them are left to train on with
// one seed than with another.
func TestSplitOfASeedThatCannotBeDrawn(t *testing.T) {
	t.Parallel()
	o := dataset.Options{Name: "handsigns", Size: 16, Validation: 250}
	var left []int // training pictures by split seed
	for o.SplitSeed = range 8 {
		s, err := dataset.Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, s.Train.Len())
	}
	most := slices.Max(left)
	o.SplitSeed, o.SplitPerSeed, o.TrainPictures = slices.Index(left, most), true, most
	s, err := dataset.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	fewer := slices.IndexFunc(left[o.SplitSeed:], func(n int) bool { return n < most })
	if fewer < 0 {
		t.Fatalf("training pictures by split seed: %d: want fewer than %d after it", left, most)
	}
	want := fmt.Sprintf("seed %d: handsigns: train_pictures is %d: want at most %d", fewer, most, left[o.SplitSeed+fewer])
	if _, err := s.OfSeed(fewer); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s …", err, want)
	}
}

// TestOrigin: where a picture comes from is where it lies in the official files.
func TestOrigin(t *testing.T) {
	t.Parallel()
	f, dir := dataset.Small("cifar10", 20, 30), t.TempDir()
	all := files(f, 20, 30)
	write(t, dir, all)
	s, err := f.Open(context.Background(), dataset.Options{Dir: dir, Validation: 33, TrainPictures: 40, TestPictures: 20,
		SplitSeed: 4})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for k, split := range splits(s) {
		before := -1
		for i := range split.Labels {
			o := s.Origin(split, i)
			record := all[o.File][o.Index*f.RecordBytes():][:f.RecordBytes()]
			if uint16(record[0]) != split.Labels[i] || !bytes.Equal(record[1:], split.Pixels[split.At(i)*3072:][:3072]) {
				t.Errorf("split %d: picture %d is not record %d of %s", k, i, o.Index, o.File)
			}
			want := o.Index
			if k < 2 {
				want += 20 * slices.Index(f.TrainFiles(), o.File)
			}
			if o.Number != want || o.Number <= before {
				t.Errorf("split %d: picture %d has the number %d after %d, want %d", k, i, o.Number, before, want)
			}
			before = o.Number
			seen[fmt.Sprint(o.File, o.Index)] = true
		}
	}
	if len(seen) != 33+40+20 {
		t.Errorf("%d different pictures, want 93", len(seen))
	}
}
