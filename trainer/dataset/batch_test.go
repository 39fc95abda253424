package dataset_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"igcsearch/trainer/dataset"
)

// randomSet returns a set of h×w training pictures of random pixels.
func randomSet(n, h, w int) *dataset.Set {
	g := rand.New(rand.NewPCG(1, uint64(n*h*w)))
	s := &dataset.Set{
		Name: "random", C: dataset.Channels, H: h, W: w,
		Mean: [3]float32{0.5, 0.25, 0.125}, Std: [3]float32{0.25, 0.5, 1},
	}
	s.Train.Labels = make([]uint16, n)
	s.Train.Pixels = make([]byte, n*s.C*h*w)
	for i := range s.Train.Labels {
		s.Train.Labels[i] = uint16(g.IntN(10))
	}
	for i := range s.Train.Pixels {
		// Never the mean, so that a zero is always padding.
		s.Train.Pixels[i] = uint8(1 + 2*g.IntN(127))
	}
	return s
}

// oracle writes what Fill should for a picture that is padded by pad, cut at
// (cutY, cutX) of the padded picture and then mirrored.
func oracle(s *dataset.Set, dst []float32, lane, picture, pad, cutY, cutX int, mirror bool) {
	for c := range s.C {
		for y := range s.H {
			for x := range s.W {
				from := x
				if mirror {
					from = s.W - 1 - x
				}
				py, px := y+cutY-pad, from+cutX-pad
				v := 0.0
				if py >= 0 && py < s.H && px >= 0 && px < s.W {
					b := s.Train.Pixels[((picture*s.C+c)*s.H+py)*s.W+px]
					v = (float64(b)/255 - float64(s.Mean[c])) / float64(s.Std[c])
				}
				dst[(((lane/16)*s.H+y)*s.C+c)*s.W*16+x*16+lane%16] = float32(v)
			}
		}
	}
}

// near allows for the rounding of the oracle's division against Fill's
// multiplication: one unit in the last place of a float32.
func near(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool {
		return x == y || math.Abs(float64(x)-float64(y)) <= 1.2e-7*math.Abs(float64(y))
	})
}

func TestFill(t *testing.T) {
	t.Parallel()

	for _, n := range []int{1, 15, 16, 17, 35} {
		t.Run(fmt.Sprintf("a batch of %d pictures is normalised and its last block filled up with zeros", n),
			func(t *testing.T) {
				t.Parallel()
				s := randomSet(40, 5, 7)
				pictures := rand.New(rand.NewPCG(2, 2)).Perm(40)[:n]
				size := (n + 15) / 16 * s.C * s.H * s.W * 16
				want := make([]float32, size+3)
				for lane, p := range pictures {
					oracle(s, want, lane, p, 0, 0, 0, false)
				}
				got := make([]float32, size+3)
				for i := range got {
					got[i] = -77 // of an earlier batch
				}
				copy(want[size:], got[size:])
				s.Fill(got, &s.Train, pictures, nil, 1, 2)
				if !near(got, want) {
					t.Errorf("Fill differs from the oracle")
				}
			})
	}

	// Pad 9 on 7 columns shows pictures of padding alone.
	for _, aug := range []dataset.Augmentation{{Pad: 4, Mirror: true}, {Pad: 2}, {Mirror: true}, {Pad: 9, Mirror: true},
		{}} {
		t.Run(fmt.Sprintf("each picture under %+v is one of the possible views of it", aug), func(t *testing.T) {
			t.Parallel()
			s := randomSet(4, 5, 7)
			size := s.C * s.H * s.W * 16
			got, want := make([]float32, size), make([]float32, size)
			for epoch := range uint64(50) {
				pictures := []int{3, 1}
				s.Fill(got, &s.Train, pictures, &aug, 7, epoch)
				for lane, p := range pictures {
					if !someView(s, got, want, lane, p, aug) {
						t.Fatalf("epoch %d: picture %d is no view of itself", epoch, p)
					}
				}
			}
		})
	}
}

func TestViews(t *testing.T) {
	t.Parallel()

	t.Run("offsets and mirror images are as frequent as they should be", func(t *testing.T) {
		t.Parallel()
		// One pixel in the middle of nothing shows where it went.
		const side, pad, n = 9, 2, 5000
		s := &dataset.Set{C: 3, H: side, W: side, Std: [3]float32{1, 1, 1}}
		s.Train.Labels = make([]uint16, n)
		s.Train.Pixels = make([]byte, n*3*side*side)
		for i := range n {
			s.Train.Pixels[i*3*side*side+4*side+3] = 255
		}
		aug := &dataset.Augmentation{Pad: pad, Mirror: true}
		dst := make([]float32, 3*side*side*16)
		counts := map[[3]int]int{}
		for i := range n {
			s.Fill(dst, &s.Train, []int{i}, aug, 5, 6)
			at := slices.Index(dst, 1) / 16
			y, x := at/(3*side), at%(3*side) // a row is that of channel 0 first
			// The pixel at (4, 3) goes to (4, 3) − offset, or 8 − x of that:
			// columns 1 … 5 or 3 … 7, so 3, 4 and 5 may be either.
			counts[[3]int{y, x, 0}]++
		}
		// Rows 2 … 6 have probability 1/5; columns 1, 2, 6 and 7 have 1/10,
		// columns 3, 4 and 5 have 2/10.
		for y := 2; y <= 6; y++ {
			for x := 1; x <= 7; x++ {
				p := 1.0 / 50
				if x >= 3 && x <= 5 {
					p = 1.0 / 25
				}
				k := counts[[3]int{y, x, 0}]
				delete(counts, [3]int{y, x, 0})
				// Five standard deviations of the binomial distribution.
				if d := math.Abs(float64(k) - n*p); d > 5*math.Sqrt(n*p*(1-p)) {
					t.Errorf("the pixel went to (%d, %d) %d times, want about %.0f", y, x, k, n*p)
				}
			}
		}
		if len(counts) > 0 {
			t.Errorf("the pixel went to other places: %v", counts)
		}
	})

	t.Run("a picture's view depends on seed, epoch and picture, not on its place in the batch", func(t *testing.T) {
		t.Parallel()
		s := randomSet(64, 8, 8)
		aug := &dataset.Augmentation{Pad: 4, Mirror: true}
		lane := func(pictures []int, at int, seed, epoch uint64) []float32 {
			dst := make([]float32, (len(pictures)+15)/16*3*8*8*16)
			s.Fill(dst, &s.Train, pictures, aug, seed, epoch)
			var out []float32
			for i := at % 16; i < 3*8*8*16; i += 16 {
				out = append(out, dst[at/16*3*8*8*16+i])
			}
			return out
		}
		many := []int{5, 9, 33, 1, 0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 14, 15, 63}
		if !slices.Equal(lane([]int{63}, 0, 1, 1), lane(many, 17, 1, 1)) {
			t.Error("picture 63 differs between two batches")
		}
		changed := 0
		for i := range uint64(20) {
			a := lane([]int{9}, 0, i, 1)
			if !slices.Equal(a, lane([]int{9}, 0, i+100, 1)) {
				changed++
			}
			if !slices.Equal(a, lane([]int{9}, 0, i, 2)) {
				changed++
			}
		}
		// A view comes again by chance once in 2·9·9 times.
		if changed < 35 {
			t.Errorf("another seed or epoch changed only %d of 40 views", changed)
		}
	})
}

func TestFillConcurrently(t *testing.T) {
	t.Parallel()

	t.Run("goroutines that fill at the same time get what one gets", func(t *testing.T) {
		t.Parallel()
		s := randomSet(40, 8, 8)
		aug := &dataset.Augmentation{Pad: 4, Mirror: true}
		pictures := dataset.Order(40, 1, 1)
		want := make([]float32, 3*3*8*8*16)
		s.Fill(want, &s.Train, pictures, aug, 1, 1)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				got := make([]float32, len(want))
				s.Fill(got, &s.Train, pictures, aug, 1, 1)
				if !slices.Equal(got, want) {
					t.Error("a concurrent Fill differs")
				}
			})
		}
		wg.Wait()
	})

	t.Run("too short a destination panics before anything is written", func(t *testing.T) {
		t.Parallel()
		s := randomSet(4, 5, 7)
		dst := make([]float32, 3*5*7*16-1)
		defer func() {
			if recover() == nil || slices.Max(dst) != 0 {
				t.Error("Fill wrote to a destination that is too short")
			}
		}()
		s.Fill(dst, &s.Train, []int{0}, nil, 0, 0)
	})
}

func TestBatchesOfPicturesInMemory(t *testing.T) {
	t.Parallel()
	s := randomSet(40, 5, 7)
	aug := &dataset.Augmentation{Pad: 2, Mirror: true}
	ctx := context.Background()
	const size = 3 * 5 * 7 * 16

	t.Run("they are Fill's in the given order, and the last has what is left", func(t *testing.T) {
		t.Parallel()
		order := dataset.Order(40, 1, 2)
		b := s.Batches(ctx, &s.Train, order, 17, aug, 1, 2)
		defer b.Close()
		for _, want := range [][]int{order[:17], order[17:34], order[34:]} {
			x, y, labels := make([]float32, 2*size), make([]float32, 2*size), make([]float32, 17)
			n, err := b.Next(x, labels)
			if err != nil || n != len(want) {
				t.Fatalf("got %d pictures and %v, want %d", n, err, len(want))
			}
			s.Fill(y, &s.Train, want, aug, 1, 2)
			if !slices.Equal(x, y) {
				t.Error("a batch differs from Fill's")
			}
			for i, p := range want {
				if labels[i] != float32(s.Train.Labels[p]) {
					t.Errorf("picture %d has the label %g, want %d", p, labels[i], s.Train.Labels[p])
				}
			}
		}
		if n, err := b.Next(nil, nil); n != 0 || err != io.EOF {
			t.Errorf("after the last batch: got %d and %v, want io.EOF", n, err)
		}
	})

	t.Run("no order is that of the split", func(t *testing.T) {
		t.Parallel()
		b := s.Batches(ctx, &s.Train, nil, 40, nil, 1, 2)
		defer b.Close()
		x, y, labels := make([]float32, 3*size), make([]float32, 3*size), make([]float32, 40)
		if n, err := b.Next(x, labels); n != 40 || err != nil {
			t.Fatalf("got %d pictures and %v", n, err)
		}
		all := make([]int, 40)
		for i := range all {
			all[i] = i
		}
		if s.Fill(y, &s.Train, all, nil, 0, 0); !slices.Equal(x, y) {
			t.Error("the pictures are in another order")
		}
	})

	t.Run("an augmentation of folders panics", func(t *testing.T) {
		t.Parallel()
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		s.Batches(ctx, &s.Train, nil, 1, &dataset.Augmentation{ResizeMax: 9}, 1, 2)
	})
}

func TestFillDoesNotAllocate(t *testing.T) {
	s := randomSet(64, 32, 32)
	dst := make([]float32, 4*3*32*32*16)
	labels := make([]float32, 64)
	pictures := slices.Repeat(dataset.Order(64, 1, 1), 12)
	aug := &dataset.Augmentation{Pad: 4, Mirror: true}
	b := s.Batches(context.Background(), &s.Train, pictures, 64, aug, 1, 1)
	defer b.Close()
	if n := testing.AllocsPerRun(10, func() {
		s.Fill(dst, &s.Train, pictures[:64], aug, 1, 1)
		if _, err := b.Next(dst, labels); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Fill and Next allocate %v times, want 0", n)
	}
}

// someView tells whether the lane shows the picture in one of the views that
// aug allows.
func someView(s *dataset.Set, got, scratch []float32, lane, picture int, aug dataset.Augmentation) bool {
	for cut := range (2*aug.Pad + 1) * (2*aug.Pad + 1) {
		for _, mirror := range []bool{false, true} {
			if mirror && !aug.Mirror {
				continue
			}
			copy(scratch, got)
			oracle(s, scratch, lane, picture, aug.Pad, cut/(2*aug.Pad+1), cut%(2*aug.Pad+1), mirror)
			if near(got, scratch) {
				return true
			}
		}
	}
	return false
}

func TestOrder(t *testing.T) {
	t.Parallel()
	t.Run("it is a permutation that the same arguments give again", func(t *testing.T) {
		t.Parallel()
		for _, n := range []int{0, 1, 2, 1000} {
			order := dataset.Order(n, 3, 4)
			if !slices.Equal(order, dataset.Order(n, 3, 4)) {
				t.Errorf("Order(%d) differs from call to call", n)
			}
			slices.Sort(order)
			for i, p := range order {
				if i != p {
					t.Fatalf("Order(%d) is no permutation: sorted it has %d at %d", n, p, i)
				}
			}
		}
	})
	t.Run("it never changes, because stored trainings resume on it", func(t *testing.T) {
		t.Parallel()
		// Recorded from this implementation.
		if got, want := dataset.Order(10, 1, 2), []int{1, 0, 2, 3, 7, 8, 4, 5, 6, 9}; !slices.Equal(got, want) {
			t.Errorf("Order(10, 1, 2) is %v, want %v", got, want)
		}
	})
	t.Run("seeds and epochs have orders of their own, also when exchanged", func(t *testing.T) {
		t.Parallel()
		seen := map[string][2]uint64{}
		for seed := range uint64(30) {
			for epoch := range uint64(30) {
				key := fmt.Sprint(dataset.Order(20, seed, epoch))
				if other, ok := seen[key]; ok {
					t.Fatalf("seed %d epoch %d has the order of seed %d epoch %d", seed, epoch, other[0], other[1])
				}
				seen[key] = [2]uint64{seed, epoch}
			}
		}
	})
	t.Run("every picture comes at every place equally often", func(t *testing.T) {
		t.Parallel()
		const n, epochs = 5, 10000
		var counts [n][n]float64
		for epoch := range uint64(epochs) {
			for place, p := range dataset.Order(n, 9, epoch) {
				counts[place][p]++
			}
		}
		for place := range counts {
			for p, k := range counts[place] {
				// Five standard deviations of the binomial distribution.
				if math.Abs(k-epochs/n) > 5*math.Sqrt(epochs*0.2*0.8) {
					t.Errorf("picture %d came %v times at place %d, want about %d", p, k, place, epochs/n)
				}
			}
		}
	})
}

// BenchmarkFill reports the time for each value, the pixel of a channel.
func BenchmarkFill(b *testing.B) {
	for _, side := range []int{16, 32} {
		b.Run(fmt.Sprintf("side=%d", side), func(b *testing.B) {
			s := randomSet(10000, side, side)
			dst := make([]float32, 4*3*side*side*16)
			pictures := dataset.Order(10000, 1, 1)
			aug := &dataset.Augmentation{Pad: 4, Mirror: true}
			i := 0
			for b.Loop() {
				s.Fill(dst, &s.Train, pictures[i:i+64], aug, 1, 1)
				i = (i + 64) % (10000 - 64)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(64*3*side*side), "ns/value")
		})
	}
}
