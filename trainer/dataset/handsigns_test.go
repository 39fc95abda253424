package dataset_test

import (
	"context"
	"encoding/csv"
	"image/png"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"igcsearch/trainer/dataset"
)

func openHandsigns(t *testing.T, o dataset.Options) *dataset.Set {
	t.Helper()
	o.Name = "handsigns"
	if o.Size == 0 {
		o.Size = 16
	}
	s, err := dataset.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// whose returns the student of each picture at 16 pixels by what it shows. No
// two pictures are the same.
func whose(t *testing.T) map[string]int {
	t.Helper()
	all, students := dataset.Handsigns(16)
	of := map[string]int{}
	for i, p := range slices.Collect(slices.Chunk(all.Pixels, 3*16*16)) {
		of[string(p)] = students[i]
	}
	if len(of) != 2062 {
		t.Fatalf("%d of 2062 pictures are different", len(of))
	}
	return of
}

// studentsOf returns the students of a split, and how many pictures of each.
func studentsOf(of map[string]int, s dataset.Split) map[int]int {
	count := map[int]int{}
	for p := range slices.Chunk(s.Pixels, 3*16*16) {
		count[of[string(p)]]++
	}
	return count
}

func classCounts(s dataset.Split) []int {
	counts := make([]int, 10)
	for _, label := range s.Labels {
		counts[label]++
	}
	return counts
}

func TestHandsigns(t *testing.T) {
	t.Parallel()
	of := whose(t)

	t.Run("every third student is tested, and all others train", func(t *testing.T) {
		t.Parallel()
		s := openHandsigns(t, dataset.Options{})
		if s.Name != "handsigns" || s.C != 3 || s.H != 16 || s.W != 16 || strings.Join(s.Classes, "") != "0123456789" {
			t.Errorf("got %s of %d×%d×%d in the classes %q", s.Name, s.C, s.H, s.W, s.Classes)
		}
		if s.Train.Len() != 1376 || s.Test.Len() != 686 || s.Validation.Len() != 0 {
			t.Errorf("got %d, %d and %d pictures", s.Train.Len(), s.Validation.Len(), s.Test.Len())
		}
		for _, split := range []dataset.Split{s.Train, s.Test} {
			// 190 of 205 students have signed each digit once.
			if n := classCounts(split); slices.Max(n)-slices.Min(n) > 5 {
				t.Errorf("the classes have %v pictures", n)
			}
		}
		train, test := studentsOf(of, s.Train), studentsOf(of, s.Test)
		for student := range 205 {
			if (train[student] > 0) == (test[student] > 0) || (test[student] > 0) != (student%3 == 2) {
				t.Errorf("student %d has %d pictures in training and %d in test", student, train[student],
					test[student])
			}
		}
		if other := openHandsigns(t, dataset.Options{SplitSeed: 3}); other.Sum != s.Sum {
			t.Error("another split seed gives other pictures, though all are in use")
		}
	})

	t.Run("its pictures never change, because stored results are of them", func(t *testing.T) {
		t.Parallel()
		// Recorded from this implementation.
		for size, want := range map[int]string{
			16: "619320b3132d26d44342a41d2b697c0929c008be4d7de1872aac6038e8f289f2",
			32: "5ac81c641c862cb96630b1bf233060dca78148928970ef8ba5b99e101e56979b",
		} {
			if s := openHandsigns(t, dataset.Options{Size: size}); s.Sum != want || s.H != size || s.W != size {
				t.Errorf("%d×%d: the sum is %s, want %s", s.H, s.W, s.Sum, want)
			}
		}
	})
}

func TestHandsignsSplits(t *testing.T) {
	t.Parallel()
	of := whose(t)

	t.Run("some pictures look as the photographs do", func(t *testing.T) {
		t.Parallel()
		// Means over the upper left, upper right, lower left and lower right
		// quarter of the photographs, of red, green and blue.
		for i, want := range map[int]struct {
			file  string
			label uint16
			means [12]float64
		}{
			0: {"IMG_1118", 0, [12]float64{189.4, 182.0, 178.9, 154.6, 184.7, 174.6, 176.9, 137.3, 183.7, 170.7,
				178.1, 125.0}},
			777: {"IMG_4639", 5, [12]float64{181.7, 167.9, 173.9, 149.1, 175.5, 164.9, 160.0, 139.9, 172.8, 166.2,
				145.1, 129.2}},
			1234: {"IMG_5133", 1, [12]float64{198.2, 180.7, 164.1, 170.9, 194.8, 174.3, 151.1, 163.2, 189.2, 166.7,
				133.2, 151.1}},
			2061: {"IMG_5999", 8, [12]float64{195.0, 193.2, 170.1, 159.4, 190.0, 187.3, 160.2, 148.8, 186.1, 182.6,
				148.9, 135.4}},
		} {
			for _, side := range []int{16, 32} {
				all, _ := dataset.Handsigns(side)
				var got [12]float64
				for c := range 3 {
					for y := range side {
						for x := range side {
							quarter := 2*(2*y/side) + 2*x/side
							got[4*c+quarter] += float64(all.Pixels[((i*3+c)*side+y)*side+x]) / float64(side*side/4)
						}
					}
				}
				for k := range got {
					if math.Abs(got[k]-want.means[k]) > 1 {
						t.Errorf("%s at %d×%d: the means are %.1f, want %.1f", want.file, side, side, got, want.means)
						break
					}
				}
				if all.Labels[i] != want.label {
					t.Errorf("%s shows %d, want %d", want.file, all.Labels[i], want.label)
				}
			}
		}
	})

	t.Run("held-out pictures are as many as asked for, balanced, and of students of whom none trains",
		func(t *testing.T) {
			t.Parallel()
			for _, n := range []int{1, 10, 128, 300, 700} {
				for seed := range 2 {
					s := openHandsigns(t, dataset.Options{Validation: n, SplitSeed: seed})
					if s.Validation.Len() != n {
						t.Errorf("validation %d: got %d pictures", n, s.Validation.Len())
					}
					if c := classCounts(s.Validation); slices.Max(c)-slices.Min(c) > 1 {
						t.Errorf("validation %d: the classes have %v pictures", n, c)
					}
					train, test := studentsOf(of, s.Train), studentsOf(of, s.Test)
					held := slices.Collect(maps.Keys(studentsOf(of, s.Validation)))
					for _, student := range held {
						if train[student]+test[student] > 0 {
							t.Errorf("validation %d: student %d is in another split too", n, student)
						}
					}
					// All students have ten pictures, as far as incomplete ones allow.
					if unused := 2062 - s.Train.Len() - n - s.Test.Len(); unused > 25 {
						t.Errorf("validation %d: %d pictures are in no split", n, unused)
					}
				}
			}
		})
}

func TestHandsignsErrors(t *testing.T) {
	t.Parallel()

	t.Run("the split seed decides which, and a larger number holds a smaller one's", func(t *testing.T) {
		t.Parallel()
		small := openHandsigns(t, dataset.Options{Validation: 100, TrainPictures: 200, TestPictures: 100, SplitSeed: 1})
		large := openHandsigns(t, dataset.Options{Validation: 100, TrainPictures: 400, TestPictures: 250, SplitSeed: 1})
		wide := openHandsigns(t, dataset.Options{Validation: 300, SplitSeed: 1})
		other := openHandsigns(t, dataset.Options{Validation: 100, TrainPictures: 200, TestPictures: 100, SplitSeed: 2})
		for _, split := range []dataset.Split{small.Train, small.Test} {
			if c := classCounts(split); slices.Max(c) != slices.Min(c) {
				t.Errorf("the classes have %v pictures", c)
			}
		}
		in := func(s dataset.Split) map[string]bool {
			m := map[string]bool{}
			for p := range slices.Chunk(s.Pixels, 3*16*16) {
				m[string(p)] = true
			}
			return m
		}
		for _, c := range []struct{ few, many, others dataset.Split }{
			{small.Train, large.Train, other.Train}, {small.Test, large.Test, other.Test},
			{small.Validation, wide.Validation, other.Validation},
		} {
			many, others := in(c.many), in(c.others)
			missing, same := 0, 0
			for p := range in(c.few) {
				if !many[p] {
					missing++
				}
				if others[p] {
					same++
				}
			}
			if missing > 0 || same == c.few.Len() {
				t.Errorf("of %d pictures %d are not among %d, and %d are those of another seed", c.few.Len(), missing,
					c.many.Len(), same)
			}
		}
	})

	t.Run("what cannot be is an error with the numbers", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			o    dataset.Options
			want string
		}{
			{dataset.Options{Size: 24}, "handsigns: size is 24: want 16 or 32"},
			{dataset.Options{Size: 16, Validation: 1370},
				"handsigns: validation is 1370: want fewer, so that students are left to train on"},
			{dataset.Options{Size: 16, Validation: 2000}, "handsigns: validation is 2000: want fewer than the"},
			{dataset.Options{Size: 16, TrainPictures: 2000}, "handsigns: train_pictures is 2000: want at most"},
			{dataset.Options{Size: 16, TestPictures: 2000}, "handsigns: test_pictures is 2000: want at most the"},
		} {
			c.o.Name = "handsigns"
			_, err := dataset.Open(context.Background(), c.o)
			wantError(t, err, c.want)
		}
	})

	t.Run("the licence and the names of the authors come with it", func(t *testing.T) {
		t.Parallel()
		for name, words := range map[string][]string{
			"LICENSE": {"Apache License", "Version 2.0", "Copyright 2017 Arda Mavi"},
			"README.md": {"Sign Language Digits Dataset", "Arda Mavi", "Zeynep Dikle", "2011.08927",
				"What was changed"},
		} {
			text, err := os.ReadFile(filepath.Join("handsigns", name))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range words {
				if !strings.Contains(string(text), want) {
					t.Errorf("%s does not say %q", name, want)
				}
			}
		}
	})
}

// TestHandsignsSource compares the embedded pictures with the photographs that
// they were made of, where those are: IGC_HANDSIGNS is the folder that
// handsigns/main.go is given.
func TestHandsignsSource(t *testing.T) {
	dir := os.Getenv("IGC_HANDSIGNS")
	if dir == "" {
		t.Skip("IGC_HANDSIGNS names no folder with the photographs at 32×32")
	}
	file, err := os.Open(filepath.Join(dir, "pictures.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	photographs, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "pictures.csv"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	list = list[1:]
	// What halved colour costs, as measured: 2.75 at 32×32, 0.67 at 16×16.
	for side, most := range map[int]float64{32: 3, 16: 1} {
		all, students := dataset.Handsigns(side)
		if all.Len() != len(list) {
			t.Fatalf("got %d pictures, want %d", all.Len(), len(list))
		}
		runs := map[string]int{} // the student that a run belongs to
		times := 32 / side
		var squares, worst float64
		for i, p := range list {
			if want := strconv.Itoa(int(all.Labels[i])); p[1] != want {
				t.Errorf("%s shows %s, want %s", p[0], want, p[1])
			}
			if s, ok := runs[p[2]]; ok && s != students[i] {
				t.Errorf("the pictures of run %s are of the students %d and %d", p[2], s, students[i])
			}
			runs[p[2]] = students[i]
			for y := range side {
				for x := range side {
					var sum [3]float64
					for k := range times * times {
						r, g, b, _ := photographs.At(i%40*32+x*times+k%times, i/40*32+y*times+k/times).RGBA()
						for c, v := range []uint32{r, g, b} {
							sum[c] += float64(v>>8) / float64(times*times)
						}
					}
					for c, want := range sum {
						d := math.Abs(float64(all.Pixels[((i*3+c)*side+y)*side+x]) - want)
						squares += d * d
						worst = max(worst, d)
					}
				}
			}
		}
		rms := math.Sqrt(squares / float64(len(all.Pixels)))
		t.Logf("%d×%d: pixels differ by %.2f grey levels (root mean square), "+
			"by %.0f at most; %d runs are of %d students",
			side, side, rms, worst, len(runs), students[len(students)-1]+1)
		if rms > most {
			t.Errorf("%d×%d: pixels differ by %.2f grey levels (root mean square), want %g at most", side, side, rms,
				most)
		}
	}
}
