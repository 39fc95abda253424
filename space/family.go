package space

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Family is the kind of block that a network is built of.
type Family string

// The families. In the formulas, which count the parameters of a block, S is the number of positions
// of the kernel: 9 in the networks of this package. docs/networks.md says where networks differ from
// those of the papers.
const (
	FamilyIGC     Family = "IGC"     // interleaved group convolutions
	FamilyRegConv Family = "RegConv" // regular 3×3 convolutions
	FamilyResNet  Family = "ResNet"  // regular 3×3 convolutions with identity mappings (Table 6)
	// FamilySumFusion adds the outputs of 4 regular 3×3 convolutions of the same input, with 8
	// channels in the first stage.
	FamilySumFusion Family = "SumFusion"
	// FamilyIGCV2 has products of N factors (arXiv:1804.06202): a 3×3 convolution whose partitions
	// have M channels, and N − 1 convolutions 1×1 whose partitions have K₂, …, K_N channels. Each
	// partition takes one channel from each partition of the product before it. A block has
	// C = M·K₂·…·K_N channels and C·(M·S + K₂ + … + K_N) parameters. IGC is the case N = 2.
	FamilyIGCV2 Family = "IGCV2"
	// FamilyMonarch has the products of two block-diagonal matrices of M blocks of M×M
	// (arXiv:2204.00595), in place of 1×1 convolutions: the pointwise IGC block with L = M. A block
	// has M² channels and 2·M³ parameters.
	FamilyMonarch Family = "Monarch"
	// FamilyIGCV3 has low-rank group convolutions (arXiv:1806.00178) on C channels: a 1×1
	// convolution of G₁ partitions to R·C channels, one 3×3 kernel for each channel, and a 1×1
	// convolution of G₂ partitions. A block has R·C·(C/G₁ + S + C/G₂) parameters.
	FamilyIGCV3 Family = "IGCV3"
	// FamilyRegNetX has the units of RegNetX (arXiv:2003.13678) and ResNeXt (arXiv:1611.05431) with
	// a bottleneck of all W channels: 1×1, 3×3 with G channels in a partition, 1×1. A block has
	// 2·W² + S·W·G parameters.
	FamilyRegNetX Family = "RegNetX"
	// FamilyShuffleNet has the units of ShuffleNet (arXiv:1707.01083) on W channels: a 1×1
	// convolution of G partitions to W/4 channels, one 3×3 kernel for each channel, and a 1×1
	// convolution of G partitions. A block has 2·W·(W/4)/G + S·W/4 parameters.
	FamilyShuffleNet Family = "ShuffleNet"
)

const (
	sumFusionBranches = 4
	sumFusionWidth    = 8
	shuffleReduction  = 4 // the channels of a ShuffleNet unit, divided by those between its 1×1 convolutions
)

// maxNumbers is the largest number of numbers in a name: M and K₂, …, K_N of IGCV2. A block with
// more than 19 factors of K ≥ 2 would have more than maxWidth channels.
const maxNumbers = 20

// family describes the networks of a Family.
type family struct {
	Family
	// example is a name of the family, for messages.
	example string
	// numbers describes the numbers of a name in their order, for IGC those of a stage.
	numbers []number
	// partitions returns the partitions of the first stage: of a product those of its first
	// factor, otherwise one.
	partitions func(n Numbers) Pair
	// check says why the numbers do not go together, or "".
	check func(n Numbers) string
	// block lists the factors of a block of width next.Width() that reads the partitions prev. Its
	// last factor has a norm and a ReLU.
	block func(s System, layout Layout, prev, next Pair) []Factor
	unit  unit // that the blocks form without Ident
	// ident says whether a name may have +Ident.
	ident bool
	// dense reports whether each output channel of a block depends on all of its input channels. It
	// is nil where this is always so.
	dense func(n Numbers) bool
	// bound returns a bound of the width of dense blocks of t parameters. If the numbers of a block
	// could be fractions, a block would reach it.
	bound func(t float64) float64
}

// number describes a number of a name.
type number struct {
	// letter stands before the number. Without one the number follows an x, as 4 in G2x4, and is
	// written only if it is not equal to the number before.
	letter string
	// The number is `least` or more, and a multiple of `every` unless that is 0.
	least, every int
	// many says that the number may be repeated, as K in M1K5K6K6. It is the last one.
	many bool
	// of is set for a number that divides another one, of(numbers before it). The cost of a network
	// falls with it if falls is set, and rises with every other number.
	of    func(n Numbers) int
	falls bool
}

// Numbers are the numbers in the name of a network, in their order. They end with zeros.
//
//	IGC              L, M; System.Stages has them in place of System.Numbers
//	RegConv, ResNet  the width
//	IGCV2            M, K₂, …, K_N
//	Monarch          M
//	IGCV3            the width, R, G₁, G₂
//	RegNetX          the width, the channels of a partition
//	ShuffleNet       the width, the number of partitions
type Numbers [maxNumbers]int

// list returns the numbers without the zeros behind them.
func (n Numbers) list() []int {
	end := len(n)
	for end > 0 && n[end-1] == 0 {
		end--
	}
	return n[:end]
}

// regular are the partitions of a family whose first number is the width.
func regular(n Numbers) Pair { return Pair{L: 1, M: n[0]} }

// theWidth returns the first number.
func theWidth(n Numbers) int { return n[0] }

var width = number{letter: "W", least: 1}

// positions is the number of positions of the 3×3 kernel, S.
const positions = 9.0

// families describes all families, in the order of messages.
var families = []family{
	{Family: FamilyIGC, example: "IGC-L24M2", ident: true,
		numbers:    []number{{letter: "L", least: 1}, {letter: "M", least: 1}},
		partitions: func(n Numbers) Pair { return Pair{L: n[0], M: n[1]} },
		block:      igcBlock,
		bound:      func(t float64) float64 { return WidthBound(2, t, positions) }},
	{Family: FamilyRegConv, example: "RegConv-W18", ident: true,
		numbers: []number{width}, partitions: regular,
		block: func(_ System, _ Layout, _, next Pair) []Factor {
			return []Factor{spatial("", 3, 1, next.Width()).rectified()}
		},
		bound: func(t float64) float64 { return WidthBound(1, t, positions) }},
	{Family: FamilyResNet, example: "ResNet-C64", ident: true,
		numbers: []number{{letter: "C", least: 1}}, partitions: regular,
		block: func(_ System, _ Layout, _, next Pair) []Factor {
			return []Factor{spatial("", 3, 1, next.Width()).rectified()}
		},
		bound: func(t float64) float64 { return WidthBound(1, t, positions) }},
	{Family: FamilySumFusion, example: "SumFusion",
		partitions: func(Numbers) Pair { return Pair{L: 1, M: sumFusionWidth} },
		block: func(_ System, _ Layout, _, next Pair) []Factor {
			sum := spatial("", 3, 1, next.Width()).rectified()
			sum.Branches = sumFusionBranches
			return []Factor{sum}
		},
		bound: func(float64) float64 { return sumFusionWidth }},
	{Family: FamilyIGCV2, example: "IGCV2-M1K5K6K6", ident: true,
		numbers: []number{{letter: "M", least: 1}, {letter: "K", least: 2, many: true}},
		partitions: func(n Numbers) Pair {
			l := 1
			for _, k := range n.list()[1:] {
				l = min(l*k, maxWidth+1) // a product below 2⁶³ of any numbers
			}
			return Pair{L: l, M: n[0]}
		},
		block: func(s System, _ Layout, _, next Pair) []Factor {
			return product(spatial("primary", 3, next.L, next.Width()), next.M, s.Numbers.list()[1:]...)
		},
		bound: func(t float64) (widest float64) {
			for n := 2; n <= maxNumbers; n++ {
				if c := WidthBound(n, t, positions); c >= math.Exp2(float64(n-1)) { // K is 2 or more
					widest = max(widest, c)
				}
			}
			return widest
		}},
	{Family: FamilyMonarch, example: "Monarch-M8", ident: true,
		numbers:    []number{{letter: "M", least: 1}},
		partitions: func(n Numbers) Pair { return Pair{L: n[0], M: n[0]} },
		block: func(_ System, _ Layout, _, next Pair) []Factor {
			return product(pointwise("primary", next.L, next.Width()), next.M, next.L)
		},
		bound: func(t float64) float64 { return WidthBound(2, t, 1) }},
	{Family: FamilyIGCV3, example: "IGCV3-W32R6G2",
		numbers: []number{width, {letter: "R", least: 1}, {letter: "G", least: 1, of: theWidth, falls: true},
			{least: 1, of: theWidth, falls: true}},
		partitions: regular,
		check: func(n Numbers) string {
			for _, g := range n[2:4] {
				if n[0]%g != 0 {
					return fmt.Sprintf("G = %d does not divide the %d channels", g, n[0])
				}
			}
			return ""
		},
		// The places of the ReLU and of the permutations are those of the authors' code: no ReLU behind
		// the first convolution, and partitions that go on every G-th channel.
		block: func(s System, _ Layout, prev, next Pair) []Factor {
			inner, g1, g2 := s.Numbers[1]*prev.Width(), s.Numbers[2], s.Numbers[3]
			expand, project := pointwise("conv1", g1, inner).norm(), pointwise("conv3", g2, next.Width()).rectified()
			expand.StepOut, project.StepOut = g1, g2
			return []Factor{expand, spatial("conv2", 3, inner, inner).rectified(), project}
		},
		unit: unit{blocks: 1},
		// A partition of the last factor reads R·C/G₂ neighbours, and every G₁-th channel is of the same
		// partition of the first.
		dense: func(n Numbers) bool { return n[2]*n[3] <= n[1]*n[0] },
		// G₁·G₂ ≤ R·C gives C/G₁ + C/G₂ ≥ 2·√(C/R), and so T ≥ S·R·C + 2·√R·C^(3/2). R is at least 1.
		bound: func(t float64) float64 { return power32(2, positions, t) }},
	{Family: FamilyRegNetX, example: "RegNetX-W48G4",
		numbers: []number{width, {letter: "G", least: 1, of: theWidth}}, partitions: regular,
		check: func(n Numbers) string {
			if n[0]%n[1] != 0 {
				return fmt.Sprintf("%d channels are not a multiple of the %d of a partition", n[0], n[1])
			}
			return ""
		},
		block: func(s System, _ Layout, _, next Pair) []Factor {
			w := next.Width()
			return []Factor{pointwise("conv1", 1, w).rectified(), spatial("conv2", 3, w/s.Numbers[1], w).rectified(),
				pointwise("conv3", 1, w).rectified()}
		},
		unit: unit{blocks: 1, project: true, relu: true},
		// 2·W² + S·W = T, with G = 1.
		bound: func(t float64) float64 { return (math.Sqrt(positions*positions+8*t) - positions) / 4 }},
	{Family: FamilyShuffleNet, example: "ShuffleNet-W48G3",
		numbers: []number{{letter: "W", least: shuffleReduction, every: shuffleReduction}, {letter: "G", least: 1, falls: true,
			of: func(n Numbers) int { return n[0] / shuffleReduction }}}, partitions: regular,
		check: func(n Numbers) string {
			if n[0]%(shuffleReduction*n[1]) != 0 {
				return fmt.Sprintf("%d channels are not a multiple of %d·G = %d", n[0], shuffleReduction,
					shuffleReduction*n[1])
			}
			return ""
		},
		block: func(s System, _ Layout, _, next Pair) []Factor {
			w, inner, g := next.Width(), next.Width()/shuffleReduction, s.Numbers[1]
			restore := pointwise("conv3", g, w).rectified()
			restore.StepIn = g // the shuffle, which the kernels of single channels between them let pass
			return []Factor{pointwise("conv1", g, inner).rectified(), spatial("conv2", 3, inner, inner).norm(), restore}
		},
		unit: unit{blocks: 1, project: true, relu: true},
		// A partition of the first factor gives W/4/G neighbours, and every G-th channel goes to the same
		// partition of the last.
		dense: func(n Numbers) bool { return n[1]*n[1] <= n[0]/shuffleReduction },
		// G ≤ √(W/4) gives T ≥ 2·W·√(W/4) + S·W/4.
		bound: func(t float64) float64 { return power32(1, positions/shuffleReduction, t) }},
}

// power32 returns the x ≥ 0 with a·x^(3/2) + b·x = t.
func power32(a, b, t float64) float64 {
	x := math.Cbrt(t / a * t / a) // too large, as each step of Newton's method from here on
	for range 100 {
		root := math.Sqrt(x)
		next := x - (a*x*root+b*x-t)/(1.5*a*root+b)
		if !(next < x) {
			break
		}
		x = next
	}
	return x
}

// system returns the plain system of some numbers.
func (f *family) system(n Numbers) System {
	if f.Family == FamilyIGC {
		return PairSystem(Pair{L: n[0], M: n[1]})
	}
	return System{Family: f.Family, Numbers: n, Ident: f.Family == FamilyResNet}
}

// numbers returns the numbers of the first stage.
func (s System) numbers() Numbers {
	if s.Family == FamilyIGC {
		return Numbers{s.Stages[0].L, s.Stages[0].M}
	}
	return s.Numbers
}

// Families lists all families, those of the paper first.
func Families() []Family {
	list := make([]Family, len(families))
	for i, f := range families {
		list[i] = f.Family
	}
	return list
}

// Examples lists a name of each family.
func Examples() []string {
	list := make([]string, len(families))
	for i, f := range families {
		list[i] = f.example
	}
	return list
}

// family describes the system's family. For an unknown one it returns nil.
func (s System) family() *family {
	for i := range families {
		if families[i].Family == s.Family {
			return &families[i]
		}
	}
	return nil
}

// product lists the factors of a block whose first factor has partitions of m channels, and which go
// on with 1×1 convolutions of partitions of ks[0], ks[1], … channels. Each partition takes one
// channel from each partition of the product before it, so that a block of m·ks[0]·ks[1]·… channels
// connects all of them. Norm and ReLU follow the last factor.
func product(first Factor, m int, ks ...int) []Factor {
	factors, step := []Factor{first}, m
	for i, k := range ks {
		f := pointwise("secondary", first.Out/k, first.Out)
		if len(ks) > 1 {
			f.Name += strconv.Itoa(i + 1)
		}
		f.StepIn, f.StepOut, f.Fused = step, step, true
		factors = append(factors, f)
		step *= k
	}
	last := &factors[len(factors)-1]
	last.Norm, last.ReLU = true, true
	return factors
}

// igcBlock lists the factors of an IGC block, of which each variant of Section 4 changes some.
func igcBlock(s System, layout Layout, prev, next Pair) []Factor {
	out, v := next.Width(), s.Variant
	factors := product(spatial("primary", v.kernel(), next.L, out), next.M, next.L)
	primary, secondary := &factors[0], &factors[1]
	if s.Ident && layout != ImageNet && next == (Pair{L: prev.L, M: 2 * prev.M}) {
		// Where M doubles, the authors' code for CIFAR keeps the number of secondary partitions
		// that the input had. Their ImageNet networks double it.
		*secondary = pointwise("secondary", prev.M, out).interleaved().rectified()
	}
	switch {
	case v == Swapped:
		primary.KH, primary.KW = 1, 1
		*secondary = spatial("secondary", 3, secondary.Groups, out).interleaved().rectified()
	case v == Projected:
		*secondary = pointwise("secondary", 1, out).rectified()
	case v == Split:
		primary.KW = 1
		before := *primary
		before.Name, before.KH, before.KW = "primary0", 1, 3
		factors = append([]Factor{before}, factors...)
	case v == Rectified:
		primary.ReLU = true
	case v.reduction() > 1:
		// Each secondary partition takes one channel from every primary partition. The primary
		// convolution gives m channels in each, so there are m secondary partitions.
		m := next.M / v.reduction()
		primary.Out = next.L * m
		*secondary = pointwise("secondary", m, out).interleaved().rectified()
	}
	return factors
}

// block lists the factors of a block of the system: see family.block.
func (s System) block(layout Layout, prev, next Pair) []Factor {
	return s.family().block(s, layout, prev, next)
}

// Block lists the factors of a block of the first stage.
func (s System) Block() []Factor {
	p := s.stage(0)
	return s.block(Flat, p, p)
}

// BlockParams returns the number of parameters of a block of the first stage. A position of its
// feature maps takes as many multiply–adds.
func (s System) BlockParams() int { return blockParams(s.Width(), s.Block()) }

// Width returns the number of channels in the first stage.
func (s System) Width() int { return s.stage(0).Width() }

// parse reads the numbers of a name, like "M1K5K6K6" for the letters M and K. It returns false if the
// text has other letters, or numbers out of their range.
func (f *family) parse(text string) (n Numbers, ok bool) {
	at := 0
	for _, k := range f.numbers {
		for first := true; first || k.many && text != ""; first = false {
			letter, found := k.letter, true
			if letter == "" {
				letter = "x"
			}
			if text, found = strings.CutPrefix(text, letter); !found && k.letter == "" {
				n[at] = n[at-1]
				at++
				continue
			}
			digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
			v, err := strconv.Atoi(text[:digits])
			if !found || err != nil || v < k.least || v > maxPartitions || at == len(n) {
				return n, false
			}
			n[at], text = v, text[digits:]
			at++
		}
	}
	return n, text == ""
}

// format writes numbers as parse reads them.
func (f *family) format(n Numbers) string {
	var b strings.Builder
	for i, k := range f.numbers {
		switch {
		case k.letter != "":
			b.WriteString(k.letter + strconv.Itoa(n[i]))
		case n[i] != n[i-1]:
			b.WriteString("x" + strconv.Itoa(n[i]))
		}
		for j := i + 1; k.many && j < len(n) && n[j] > 0; j++ {
			b.WriteString(k.letter + strconv.Itoa(n[j]))
		}
	}
	return b.String()
}

// want says what a name of the family may contain.
func (f *family) want() string {
	if f.numbers == nil {
		return "like " + f.example
	}
	var of []string
	for _, k := range f.numbers {
		switch {
		case k.letter == "":
		case k.many:
			of = append(of, fmt.Sprintf("%s from %d to %d, 1 to %d times", k.letter, k.least, maxPartitions, maxNumbers-1))
		default:
			of = append(of, fmt.Sprintf("%s from %d to %d", k.letter, k.least, maxPartitions))
		}
	}
	return fmt.Sprintf("like %s: %s", f.example, strings.Join(of, ", "))
}
