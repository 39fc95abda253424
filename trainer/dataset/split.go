package dataset

import (
	"fmt"
	"slices"
)

// holding takes n validation pictures from the lists of the training pictures of
// each class, which are in random order, and returns them sorted. It may remove
// other pictures from the lists; these are not used.
type holding func(byClass [][]int, n int) ([]int, error)

// balanced is the holding of a set that has no official validation pictures.
func balanced(byClass [][]int, n int) ([]int, error) { return take(byClass, n), nil }

// holdOut draws the validation pictures and the training pictures of a set
// with the given training labels. Both lists are in the order of the files.
func holdOut(labels []uint16, classes int, o Options, hold holding) (held, kept []int, err error) {
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
	byClass := shuffledByClass(labels, classes, uint64(o.SplitSeed), streamTrain)
	held, err = hold(byClass, o.Validation)
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
