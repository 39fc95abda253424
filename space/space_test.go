package space_test

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"igcsearch/space"

	"pgregory.net/rapid"
)

// pairs draws pairs of usual sizes, and much larger ones.
var pairs = rapid.Custom(func(t *rapid.T) space.Pair {
	return space.Pair{L: rapid.IntRange(1, 2000).Draw(t, "L"), M: rapid.IntRange(1, 2000).Draw(t, "M")}
})

// table1 has the columns of Table 1 for about 4672 and about 17536 parameters, with S = 9.
var table1 = []struct {
	budget              int
	l, m, params, width []int
	widestL, widestM    int
}{
	{
		budget: 4672,
		l:      []int{1, 2, 3, 5, 6, 12, 28, 40, 64},
		m:      []int{23, 16, 13, 10, 9, 6, 3, 2, 1},
		params: []int{4784, 4672, 4680, 4750, 4698, 4752, 4620, 4640, 4672},
		width:  []int{23, 32, 39, 50, 54, 72, 84, 80, 64},
		// "The width LM is the greatest when L ≈ 9M: (i) 28 ≈ 3 × 9".
		widestL: 28, widestM: 3,
	},
	{
		budget: 17536,
		l:      []int{1, 2, 4, 12, 14, 23, 28, 41, 64, 85, 128},
		m:      []int{44, 31, 22, 12, 11, 8, 7, 5, 3, 2, 1},
		params: []int{17468, 17422, 17776, 17280, 17402, 17480, 17836, 17630, 17472, 17510, 17536},
		// The table prints 63 for L2M31; 2·31 is 62, and its own #params agree.
		width:   []int{44, 62, 88, 144, 154, 184, 196, 205, 192, 170, 128},
		widestL: 41, widestM: 5,
	},
}

func TestTable1(t *testing.T) {
	t.Parallel()
	for _, half := range table1 {
		t.Run(fmt.Sprintf("about %d parameters", half.budget), func(t *testing.T) {
			widest := space.Pair{L: 1, M: 1}
			for i := range half.l {
				p := space.Pair{L: half.l[i], M: half.m[i]}
				if got := p.Params(9); got != half.params[i] {
					t.Errorf("%s has %d parameters, the paper says %d", p, got, half.params[i])
				}
				if got := p.Width(); got != half.width[i] {
					t.Errorf("%s is %d wide, the paper says %d", p, got, half.width[i])
				}
				if p.Width() > widest.Width() {
					widest = p
				}
			}
			if want := (space.Pair{L: half.widestL, M: half.widestM}); widest != want {
				t.Errorf("the widest is %s, the paper says %s", widest, want)
			}
		})
	}
}

func TestPair(t *testing.T) {
	t.Parallel()
	t.Run("the package comment's L24M2 is 48 wide and has 2,016 parameters", func(t *testing.T) {
		p := space.Pair{L: 24, M: 2}
		if p.Width() != 48 || p.Params(9) != 2016 {
			t.Errorf("width %d, parameters %d", p.Width(), p.Params(9))
		}
	})
	t.Run("parameters are G²(S/L + 1/M), Eq. 7 in another form", rapid.MakeCheck(func(t *rapid.T) {
		p, s := pairs.Draw(t, "pair"), rapid.IntRange(1, 49).Draw(t, "S")
		// Both sides are multiplied by L·M, which keeps them whole numbers.
		g := p.Width()
		if got, want := p.Params(s)*p.L*p.M, g*g*(s*p.M+p.L); got != want {
			t.Fatalf("%s: %d, want %d", p, got, want)
		}
	}))
	t.Run("the order is rising M, then rising L", func(t *testing.T) {
		got := []space.Pair{{L: 5, M: 2}, {L: 9, M: 1}, {L: 4, M: 2}, {L: 10, M: 1}}
		slices.SortFunc(got, space.ComparePairs)
		want := []space.Pair{{L: 9, M: 1}, {L: 10, M: 1}, {L: 4, M: 2}, {L: 5, M: 2}}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestParsePair(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"40x2", "L40M2"} {
		t.Run(text+" is L = 40, M = 2", func(t *testing.T) {
			if p, err := space.ParsePair(text); err != nil || p != (space.Pair{L: 40, M: 2}) {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
	for _, c := range []struct{ text, says string }{
		{"", "want L and M"},
		{"40", "want L and M"},
		{"40,2", "want L and M"},
		{"M2L40", "want L and M"},
		{"x", `L is ""`},
		{"L40M", `M is ""`},
		{"0x2", `L is "0"`},
		{"40x0", `M is "0"`},
		{"-4x2", `L is "-4"`},
		{"+4x2", `L is "+4"`},
		{"4 x2", `L is "4 "`},
		{"40x2x1", `M is "2x1"`},
		{"100001x1", "1 to 100000"},
		{"1x99999999999999999999", "1 to 100000"},
	} {
		t.Run(fmt.Sprintf("%q is refused", c.text), func(t *testing.T) {
			_, err := space.ParsePair(c.text)
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.says)
			}
		})
	}
}

func FuzzParsePair(f *testing.F) {
	for _, seed := range []string{"40x2", "L40M2", "", "x", "LM", "L1M1x", "00x1", "1_0x1", "100000x100000", "٣x1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := space.ParsePair(text)
		if err != nil {
			if p != (space.Pair{}) {
				t.Errorf("%q: a pair %v with the error %v", text, p, err)
			}
			return
		}
		if p.L < 1 || p.M < 1 || p.L > 100_000 || p.M > 100_000 || p.Params(1000) <= 0 {
			t.Errorf("%q gave %+v", text, p)
		}
		for _, again := range []string{p.String(), fmt.Sprintf("%dx%d", p.L, p.M)} {
			if q, err := space.ParsePair(again); err != nil || q != p {
				t.Errorf("%q gave %v, whose spelling %q gave %v, %v", text, p, again, q, err)
			}
		}
	})
}

// TestWiderThanRegular checks Eq. 9: with the same parameters a block is wider than a regular
// convolution of C = √(T/S) channels exactly when L/(L−1) < M·S.
func TestWiderThanRegular(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := budgets.Draw(t, "budget")
		b.Variant = ""
		for _, p := range b.All() {
			g, s := p.Width(), b.Kernel
			wider := g*g*s > p.Params(s) // G² > C², in integers
			if want := p.L < (p.L-1)*p.M*s; wider != want {
				t.Fatalf("%v, S = %d: wider is %v, Eq. 9 says %v", p, s, wider, want)
			}
		}
	})
}

func TestWidthBound(t *testing.T) {
	t.Parallel()
	t.Run("no pair is wider than its parameters allow", rapid.MakeCheck(func(t *rapid.T) {
		p, s := pairs.Draw(t, "pair"), rapid.IntRange(1, 49).Draw(t, "S")
		params := p.Params(s)
		// Eq. 14 squared, in integers: T² ≥ 4·S·G³.
		g := big.NewInt(int64(p.Width()))
		right := new(big.Int).Exp(g, big.NewInt(3), nil)
		right.Mul(right, big.NewInt(int64(4*s)))
		left := new(big.Int).Mul(big.NewInt(int64(params)), big.NewInt(int64(params)))
		if left.Cmp(right) < 0 {
			t.Fatalf("Eq. 14 fails for %s, S = %d", p, s)
		}
		// 1e-12 allows for the rounding of a cube root, a square root and four products.
		if bound := space.WidthBound(2, float64(params), float64(s)); float64(p.Width()) > bound*(1+1e-12) {
			t.Fatalf("%s, S = %d: width %d above the bound %.17g", p, s, p.Width(), bound)
		}
	}))
	t.Run("L = M·S meets the bound", rapid.MakeCheck(func(t *rapid.T) {
		m, s := rapid.IntRange(1, 500).Draw(t, "M"), rapid.IntRange(1, 49).Draw(t, "S")
		p := space.Pair{L: m * s, M: m}
		if got := space.WidthBound(2, float64(p.Params(s)), float64(s)); math.Abs(got/float64(p.Width())-1) > 1e-12 {
			t.Fatalf("%s, S = %d: bound %.17g, width %d", p, s, got, p.Width())
		}
		gotL, gotM := space.WidestPoint(p.Params(s), s)
		if math.Abs(gotL/float64(p.L)-1) > 1e-12 || math.Abs(gotM/float64(p.M)-1) > 1e-12 {
			t.Fatalf("%s, S = %d: the widest point is (%.17g, %.17g)", p, s, gotL, gotM)
		}
	}))
	t.Run("Table 1's budgets", func(t *testing.T) {
		// The bounds by hand are (4672/6)^(2/3) = 778.67^(2/3), where 9.2³ = 778.688 and
		// 9.2² = 84.64, and (17536/6)^(2/3) = 2922.67^(2/3), where 14.2973³ = 2922.6 and
		// 14.2973² = 204.41.
		for _, c := range []struct {
			budget int
			want   float64
		}{{4672, 84.64}, {17536, 204.41}} {
			if got := space.WidthBound(2, float64(c.budget), 9); math.Abs(got-c.want) > 0.02 {
				t.Errorf("T = %d: %g, want %g", c.budget, got, c.want)
			}
		}
	})
}

func ExampleBudget_Nearest() {
	b := space.Budget{Params: 4672, Kernel: 9, Tolerance: 0.024}
	for _, p := range b.Nearest() {
		fmt.Printf("%-6s width %2d, %d parameters (%+.2f %%)\n", p, p.Width(), p.Params(9), 100*b.Error(p))
	}
	// Output:
	// L64M1  width 64, 4672 parameters (+0.00 %)
	// L40M2  width 80, 4640 parameters (-0.68 %)
	// L28M3  width 84, 4620 parameters (-1.11 %)
	// L12M6  width 72, 4752 parameters (+1.71 %)
	// L6M9   width 54, 4698 parameters (+0.56 %)
	// L5M10  width 50, 4750 parameters (+1.67 %)
	// L3M13  width 39, 4680 parameters (+0.17 %)
	// L2M16  width 32, 4672 parameters (+0.00 %)
	// L1M23  width 23, 4784 parameters (+2.40 %)
}

func ExampleFigure3() {
	n := space.Figure3(space.Pair{L: 40, M: 2}, 6, space.Shape{C: 3, H: 32, W: 32}, 100)
	fmt.Println(n.Name, n.Params(), "parameters,", n.MultiplyAdds(), "multiply–adds")
	// Output:
	// IGC-L40M2 38100 parameters, 30728000 multiply–adds
}
