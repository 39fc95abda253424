package dataset

import (
	"fmt"
	"slices"
	"sync"
)

// holding takes n validation pictures from the lists of the training pictures of
// each class, which are in random order, and returns them sorted. It may remove
// other pictures from the lists; these are not used. The lists were drawn by seed.
type holding func(byClass [][]int, n int, seed uint64) ([]int, error)

// balanced is the holding of a set that has no official validation pictures.
func balanced(byClass [][]int, n int, _ uint64) ([]int, error) { return take(byClass, n), nil }

// draws are the splits of a set that has one for each seed. They share the pixels.
type draws struct {
	o     Options
	train Split // all training pictures
	hold  holding

	mu   sync.Mutex
	sets map[int]*Set // by seed
}

// splitPerSeed is split for a set with SplitPerSeed, which gets the split of seed 0.
// Then OfSeed draws the others.
func (s *Set) splitPerSeed(o Options, train Split, hold holding) error {
	all := *s
	all.Train = train
	s.Sum = all.SplitSum()
	s.draws = &draws{o: o, train: train, hold: hold, sets: map[int]*Set{0: s}}
	return s.draw(0)
}

// OfSeed returns the set with the split of a trial's seed, and its mean and standard
// deviation. Without SplitPerSeed this is s. Otherwise the training and validation
// pictures are those that Open draws by the SplitSeed that is larger by seed; the
// test pictures are the same for all seeds. The sets share their pixels, and the set
// of a seed is always the same one. The error says that the pictures cannot be split
// in this way.
func (s *Set) OfSeed(seed int) (*Set, error) {
	d := s.draws
	if d == nil {
		return s, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sets[seed] == nil {
		drawn := *s
		if err := drawn.draw(seed); err != nil {
			return nil, fmt.Errorf("seed %d: %w", seed, err)
		}
		d.sets[seed] = &drawn
	}
	return d.sets[seed], nil
}

// draw gives s the split of a seed.
func (s *Set) draw(seed int) error {
	d := s.draws
	held, kept, err := holdOut(d.train.Labels, len(s.Classes), d.o, d.o.SplitSeed+seed, d.hold)
	if err != nil {
		return err
	}
	s.Train, s.Validation = d.train.view(kept), d.train.view(held)
	s.Mean, s.Std = s.statistics()
	return nil
}

// view returns the given pictures where they lie. s must be no view.
func (s *Split) view(pictures []int) Split {
	var v Split
	for _, i := range pictures {
		v.Labels = append(v.Labels, s.Labels[i])
		v.numbers = append(v.numbers, int32(s.number(i)))
		if s.files != nil {
			v.files = append(v.files, s.files[i])
		} else {
			v.at = append(v.at, int32(i))
		}
	}
	if s.files == nil {
		v.Pixels, v.all = s.Pixels, s.Labels
	}
	return v
}

// pictureFile is a file of a set and how many pictures it has.
type pictureFile struct {
	name     string
	pictures int
}

// Origin says where a picture comes from.
type Origin struct {
	// File is the name of the official file, or the place of the picture in its
	// folder; "" if the set needs no files.
	File  string
	Index int // in the file, from 0
	// Number is the place of the picture in the list of all training pictures, or of
	// all test pictures, in the order of the files, from 0.
	Number int
}

// Origin returns that of picture i of a split of s.
func (s *Set) Origin(split *Split, i int) Origin {
	o := Origin{Number: split.number(i)}
	if split.files != nil {
		o.File = split.files[i].Name
		return o
	}
	o.Index = o.Number
	files := s.trainFiles
	if split == &s.Test {
		files = s.testFiles
	}
	for _, f := range files {
		o.File = f.name
		if o.Index < f.pictures {
			break
		}
		o.Index -= f.pictures
	}
	return o
}

// holdOut draws the validation pictures and the training pictures of a set
// with the given training labels. Both lists are in the order of the files.
func holdOut(labels []uint16, classes int, o Options, seed int, hold holding) (held, kept []int, err error) {
	for _, n := range []struct {
		name  string
		value int
	}{{"validation", o.Validation}, {"train_pictures", o.TrainPictures}, {"test_pictures", o.TestPictures}} {
		if n.value < 0 {
			return nil, nil, fmt.Errorf("%s: %s is %d: want 0 or more", o.Name, n.name, n.value)
		}
	}
	if o.Validation >= len(labels) {
		return nil, nil, fmt.Errorf("%s: validation is %d: want fewer than the %d training pictures there are", o.Name,
			o.Validation, len(labels))
	}
	byClass := shuffledByClass(labels, classes, uint64(seed), streamTrain)
	held, err = hold(byClass, o.Validation, uint64(seed))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	left := 0
	for _, pictures := range byClass {
		left += len(pictures)
	}
	if o.TrainPictures > left {
		return nil, nil, fmt.Errorf("%s: train_pictures is %d: want at most %d (%d pictures less %d for validation)",
			o.Name, o.TrainPictures, left, len(labels), len(labels)-left)
	}
	if o.TrainPictures > 0 {
		left = o.TrainPictures
	}
	return held, take(byClass, left), nil
}

// boundTest draws the test pictures of a set with the given test labels.
func boundTest(labels []uint16, classes int, o Options) ([]int, error) {
	if o.TestPictures > len(labels) {
		return nil, fmt.Errorf("%s: test_pictures is %d: want at most the %d there are", o.Name, o.TestPictures,
			len(labels))
	}
	n := len(labels)
	if o.TestPictures > 0 {
		n = o.TestPictures
	}
	return take(shuffledByClass(labels, classes, uint64(o.SplitSeed), streamTest), n), nil
}

// shuffledByClass returns the pictures of each class in random order.
func shuffledByClass(labels []uint16, classes int, seed, stream uint64) [][]int {
	byClass := make([][]int, classes)
	for i, label := range labels {
		byClass[label] = append(byClass[label], i)
	}
	for class, pictures := range byClass {
		shuffle(pictures, seed, stream+uint64(class)<<8)
	}
	return byClass
}

// take removes n pictures from the front of the classes' lists and returns them
// sorted. The numbers of the classes differ by one at most, unless a class has too
// few. There must be n pictures.
func take(byClass [][]int, n int) []int {
	quota := make([]int, len(byClass))
	for left := n; left > 0; {
		var open []int // classes that have pictures left
		for class := range byClass {
			if quota[class] < len(byClass[class]) {
				open = append(open, class)
			}
		}
		// Each open class gives the same number. If fewer are left than there are
		// classes, the first classes give one each.
		share := max(left/len(open), 1)
		for _, class := range open[:min(len(open), left)] {
			k := min(share, len(byClass[class])-quota[class])
			quota[class] += k
			left -= k
		}
	}
	taken := make([]int, 0, n)
	for class, k := range quota {
		taken = append(taken, byClass[class][:k]...)
		byClass[class] = byClass[class][k:]
	}
	slices.Sort(taken)
	return taken
}
