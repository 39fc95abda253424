package dataset_test

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"

	"igcsearch/trainer/dataset"
)

func openSynthetic(t *testing.T, o dataset.Options) *dataset.Set {
	t.Helper()
	o.Name = "synthetic"
	s, err := dataset.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSynthetic(t *testing.T) {
	t.Parallel()

	t.Run("it has 2000 and 1000 pictures of 3×16×16 in ten classes of the same size", func(t *testing.T) {
		t.Parallel()
		s := openSynthetic(t, dataset.Options{})
		if s.Name != "synthetic" || s.C != 3 || s.H != 16 || s.W != 16 || len(s.Classes) != 10 {
			t.Errorf("got %s of %d×%d×%d in the classes %q", s.Name, s.C, s.H, s.W, s.Classes)
		}
		if s.Train.Len() != 2000 || s.Validation.Len() != 0 || s.Test.Len() != 1000 ||
			len(s.Test.Pixels) != 1000*3*16*16 {
			t.Errorf("got %d, %d and %d pictures", s.Train.Len(), s.Validation.Len(), s.Test.Len())
		}
		for _, split := range []dataset.Split{s.Train, s.Test} {
			counts := make([]int, 10)
			for _, label := range split.Labels {
				counts[label]++
			}
			if slices.Min(counts) != slices.Max(counts) {
				t.Errorf("the classes have %v pictures", counts)
			}
		}
	})

	t.Run("its pictures never change, because stored results are of them", func(t *testing.T) {
		t.Parallel()
		// Recorded from this implementation.
		const want = "2293ff5878430ee0bdcd2c98ad704289713a7f4ad3e5e2ae276a021e28823609"
		for _, o := range []dataset.Options{{}, {SplitSeed: 7}} {
			if s := openSynthetic(t, o); s.Sum != want {
				t.Errorf("%+v: the sum is %s, want %s", o, s.Sum, want)
			}
		}
	})

	t.Run("more pictures begin with those of fewer", func(t *testing.T) {
		t.Parallel()
		few, many := openSynthetic(t, dataset.Options{}),
			openSynthetic(t, dataset.Options{TrainPictures: 3500, TestPictures: 1200})
		if many.Train.Len() != 3500 || many.Test.Len() != 1200 {
			t.Fatalf("got %d and %d pictures", many.Train.Len(), many.Test.Len())
		}
		if !bytes.HasPrefix(many.Train.Pixels, few.Train.Pixels) ||
			!bytes.HasPrefix(many.Test.Pixels, few.Test.Pixels) {
			t.Error("they begin with others")
		}
	})

	t.Run("held-out and bounded pictures are drawn from the list, which grows if it must", func(t *testing.T) {
		t.Parallel()
		s := openSynthetic(t, dataset.Options{Validation: 500, TrainPictures: 2000, TestPictures: 100})
		if s.Train.Len() != 2000 || s.Validation.Len() != 500 || s.Test.Len() != 100 {
			t.Errorf("got %d, %d and %d pictures", s.Train.Len(), s.Validation.Len(), s.Test.Len())
		}
		if s := openSynthetic(t, dataset.Options{Validation: 500}); s.Train.Len() != 1500 {
			t.Errorf("got %d training pictures, want the 1500 that are not held out", s.Train.Len())
		}
	})

	t.Run("no two pictures are the same", func(t *testing.T) {
		t.Parallel()
		s := openSynthetic(t, dataset.Options{})
		seen := map[string]bool{}
		for _, split := range []dataset.Split{s.Train, s.Test} {
			for p := range slices.Chunk(split.Pixels, 3*16*16) {
				seen[string(p)] = true
			}
		}
		if len(seen) != 3000 {
			t.Errorf("%d of 3000 pictures are different", len(seen))
		}
	})
}

func TestSyntheticKinds(t *testing.T) {
	t.Parallel()

	t.Run("more than it has is an error with the numbers", func(t *testing.T) {
		t.Parallel()
		ctx := context.Background()
		_, err := dataset.Open(ctx, dataset.Options{Name: "synthetic", TrainPictures: 9000, Validation: 1001})
		wantError(t, err, "synthetic: 10001 pictures for training and validation: want at most 10000")
		_, err = dataset.Open(ctx, dataset.Options{Name: "synthetic", TestPictures: 5001})
		wantError(t, err, "synthetic: test_pictures is 5001: want at most 5000")
		_, err = dataset.Open(ctx, dataset.Options{Name: "synthetic", Validation: 2000})
		wantError(t, err, "validation is 2000: want fewer than the 2000")
		_, err = dataset.Open(ctx, dataset.Options{Name: "synthetic", TrainPictures: -1})
		wantError(t, err, "train_pictures is -1: want 0 or more")
		_, err = dataset.Open(ctx, dataset.Options{Name: "imagenet"})
		wantError(t, err, `dataset "imagenet": want one of `+
			`["synthetic" "handsigns" "cifar10" "cifar100" "cifar100-coarse" "svhn" "folder"]`)
	})

	t.Run("each kind of patch belongs to two or three classes", func(t *testing.T) {
		t.Parallel()
		classes := map[int]int{}
		for class, kinds := range dataset.SyntheticKinds {
			if distinct := slices.Compact(slices.Sorted(slices.Values(kinds[:]))); len(distinct) != 6 {
				t.Errorf("class %d has a kind twice: %v", class, kinds)
			}
			for _, kind := range kinds {
				classes[kind]++
			}
		}
		for kind := range 24 {
			if n := classes[kind]; n < 2 || n > 3 {
				t.Errorf("kind %d belongs to %d classes", kind, n)
			}
		}
		if len(classes) != 24 {
			t.Errorf("%d kinds belong to classes, want 24", len(classes))
		}
	})

	t.Run("the average colour says nothing about the class, stripes and channels together do", func(t *testing.T) {
		t.Parallel()
		s := openSynthetic(t, dataset.Options{})
		train := values(s, &s.Train, nil)
		plain := values(s, &s.Test, nil)
		mirrored := values(s, &s.Test, &dataset.Augmentation{Mirror: true})
		moved := values(s, &s.Test, &dataset.Augmentation{Pad: 2, Mirror: true})
		combined := func(p []float32) []float64 { return energies(p, true, true) }
		colour := accuracy(s, train, plain, averageColour)
		stripes := accuracy(s, train, plain, func(p []float32) []float64 { return energies(p, true, false) })
		channels := accuracy(s, train, plain, func(p []float32) []float64 { return energies(p, false, true) })
		both := accuracy(s, train, plain, combined)
		bothMirrored := accuracy(s, train, mirrored, combined)
		bothMoved := accuracy(s, train, moved, combined)
		t.Logf("nearest class mean: colour %.3f, stripes %.3f, channels %.3f, both %.3f, "+
			"both of mirrored pictures %.3f, of moved ones %.3f",
			colour, stripes, channels, both, bothMirrored, bothMoved)
		// Chance is 0.1 ± 0.0095 for 1000 pictures: five of these.
		if colour > 0.1475 {
			t.Errorf("the average colour gives %.3f", colour)
		}
		if both < 0.3 || both < stripes+0.05 || both < channels+0.05 {
			t.Errorf("stripes give %.3f, channels %.3f, both %.3f: want both to be needed", stripes, channels, both)
		}
		if bothMirrored < both-0.05 {
			t.Errorf("mirrored, the accuracy falls from %.3f to %.3f", both, bothMirrored)
		}
		// A shift cuts patches off at the edge.
		if bothMoved < both-0.1 {
			t.Errorf("mirrored and shifted by up to two pixels, the accuracy falls from %.3f to %.3f", both, bothMoved)
		}
	})
}

// values returns the normalised pictures of a split, each (C, H, W).
func values(s *dataset.Set, split *dataset.Split, aug *dataset.Augmentation) [][]float32 {
	dst := make([]float32, s.C*s.H*s.W*16)
	list := make([][]float32, split.Len())
	for i := range list {
		s.Fill(dst, split, []int{i}, aug, 1, 1)
		list[i] = make([]float32, s.C*s.H*s.W)
		for j := range list[i] { // (C, H, W) of (H, C, W, 16)
			c, y, x := j/s.W/s.H, j/s.W%s.H, j%s.W
			list[i][j] = dst[((y*s.C+c)*s.W+x)*16]
		}
	}
	return list
}

// accuracy is that of the nearest class mean of standardised features. The
// means are of the training pictures.
func accuracy(s *dataset.Set, trainPictures, testPictures [][]float32, features func([]float32) []float64) float64 {
	of := func(pictures [][]float32) (list [][]float64) {
		for _, p := range pictures {
			list = append(list, features(p))
		}
		return list
	}
	train, test := of(trainPictures), of(testPictures)
	k := len(train[0])
	mean, std := make([]float64, k), make([]float64, k)
	for _, f := range train {
		for j, v := range f {
			mean[j] += v / float64(len(train))
			std[j] += v * v / float64(len(train))
		}
	}
	for j := range std {
		std[j] = math.Sqrt(std[j] - mean[j]*mean[j])
	}
	centre := make([][]float64, len(s.Classes))
	n := make([]float64, len(s.Classes))
	for i, f := range train {
		c := s.Train.Labels[i]
		if centre[c] == nil {
			centre[c] = make([]float64, k)
		}
		n[c]++
		for j, v := range f {
			centre[c][j] += ((v-mean[j])/std[j] - centre[c][j]) / n[c]
		}
	}
	right := 0
	for i, f := range test {
		best, least := 0, math.Inf(1)
		for c := range centre {
			d := 0.0
			for j, v := range f {
				e := (v-mean[j])/std[j] - centre[c][j]
				d += e * e
			}
			if d < least {
				best, least = c, d
			}
		}
		if best == int(s.Test.Labels[i]) {
			right++
		}
	}
	return float64(right) / float64(len(test))
}

// averageColour returns the mean of each channel and their products.
func averageColour(p []float32) []float64 {
	var m [3]float64
	for i, v := range p {
		m[i/256] += float64(v) / 256
	}
	return []float64{m[0], m[1], m[2], m[0] * m[0], m[1] * m[1], m[2] * m[2], m[0] * m[1], m[0] * m[2], m[1] * m[2]}
}

// energies returns the logarithm of the mean squared second difference along
// rows, columns and both diagonals, of the sum of the channels with each
// pattern of signs. Without stripes the directions are added up, without
// channels the patterns.
func energies(p []float32, stripes, channels bool) []float64 {
	var e [3][4]float64
	for k, signs := range [4][3]float32{{1, 1, 1}, {1, 1, -1}, {1, -1, 1}, {-1, 1, 1}} {
		at := func(y, x int) float32 {
			i := y*16 + x
			return signs[0]*p[i] + signs[1]*p[256+i] + signs[2]*p[512+i]
		}
		for y := 2; y < 14; y++ {
			for x := 2; x < 14; x++ {
				for d, step := range [4][2]int{{0, 2}, {2, 0}, {1, 1}, {1, -1}} {
					v := 2*at(y, x) - at(y+step[0], x+step[1]) - at(y-step[0], x-step[1])
					e[min(d, 2)][k] += float64(v * v)
				}
			}
		}
	}
	var f []float64
	sum := map[int]float64{}
	for d := range e {
		for k := range e[d] {
			switch {
			case stripes && channels:
				f = append(f, math.Log(e[d][k]))
			case stripes:
				sum[d] += e[d][k]
			default:
				sum[k] += e[d][k]
			}
		}
	}
	for i := range len(sum) {
		f = append(f, math.Log(sum[i]))
	}
	return f
}
