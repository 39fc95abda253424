package space

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Variant is a change of the IGC block from Section 4 of the paper. "" is the plain block. The
// formulas below count the parameters of a block; S is 9 in the networks of this package.
type Variant string

const (
	// Swapped exchanges the kernels: the primary convolution is 1×1, the secondary one 3×3. It
	// has L·M² + S·M·L² parameters.
	Swapped Variant = "Swap"
	// Projected replaces the secondary convolution by a 1×1 convolution over all channels. It has
	// S·L·M² + (L·M)² parameters.
	Projected Variant = "Proj"
	// Split replaces the 3×3 kernel by a 1×3 and a 3×1 kernel. It has 2·3·L·M² + M·L² parameters.
	Split Variant = "1x3"
	// Large has a 5×5 primary kernel. It has 25·L·M² + M·L² parameters.
	Large Variant = "5x5"
	// Rectified puts a ReLU between the primary and the secondary convolution. It has as many
	// parameters as the plain block.
	Rectified Variant = "ReLU"
	// Pointwise has a 1×1 primary kernel. It has L·M² + M·L² parameters, and is no variant of the
	// paper: two such convolutions replace a 1×1 convolution.
	Pointwise Variant = "1x1"
)

// Bottleneck returns the variant whose primary convolution reduces the M channels of a partition to
// M/r, r ≥ 2. Its secondary convolution has M/r partitions and restores M channels. It has
// S·L·M·(M/r) + M·L² parameters.
func Bottleneck(r int) Variant { return Variant("B" + strconv.Itoa(r)) }

// Variants lists the plain block and the variants except bottlenecks, those of the paper first and
// in its order.
var Variants = []Variant{"", Swapped, Projected, Split, Large, Rectified, Pointwise}

// reduction returns r of a bottleneck, and 1 for other variants.
func (v Variant) reduction() int {
	if rest, ok := strings.CutPrefix(string(v), "B"); ok {
		if r, err := strconv.Atoi(rest); err == nil && r >= 2 && r <= maxPartitions && rest == strconv.Itoa(r) {
			return r
		}
	}
	return 1
}

// known reports whether the variant exists.
func (v Variant) known() bool {
	for _, k := range Variants {
		if v == k {
			return true
		}
	}
	return v.reduction() > 1
}

// Validate returns an error that lists the variants if v is not one of them.
func (v Variant) Validate() error {
	if v.known() {
		return nil
	}
	return fmt.Errorf("variant %q: want Swap, Proj, 1x3, 5x5, ReLU, 1x1, or B2, B3, … for a bottleneck", string(v))
}

// kernel returns the number of rows and of columns of the primary kernel, of Swapped those of the
// secondary one.
func (v Variant) kernel() int {
	switch v {
	case Large:
		return 5
	case Pointwise:
		return 1
	}
	return 3
}

// cost returns a and b of the formula a·L + b·L², which gives the block's parameters for a primary
// kernel of s positions. ok is false if the variant does not exist for this M.
func (v Variant) cost(s, m int) (a, b int, ok bool) {
	switch r := v.reduction(); {
	case v == Swapped:
		return m * m, s * m, true
	case v == Projected:
		return s * m * m, m * m, true
	case v == Split:
		return 2 * 3 * m * m, m, true
	case v == Large:
		return 25 * m * m, m, true
	case v == Pointwise:
		return m * m, m, true
	case r > 1:
		return s * m * (m / r), m, m%r == 0
	}
	return s * m * m, m, true
}

// Params returns the number of parameters of a block of the variant. kernel is the number of
// positions of the primary kernel; Split, Large and Pointwise use their own kernels instead. The result is 0
// if the variant does not exist for this pair.
func (v Variant) Params(p Pair, kernel int) int {
	a, b, ok := v.cost(kernel, p.M)
	if !ok {
		return 0
	}
	return a*p.L + b*p.L*p.L
}

// System names a network of the paper, or one that is built in the same way. Its methods Network
// and String give the layers and the name. Systems can be compared with ==.
type System struct {
	Family Family
	// Numbers are the numbers of the name, for families other than IGC. Each stage but the first
	// has twice the channels of the stage before; the first of the numbers doubles for this, and the
	// others stay.
	Numbers Numbers
	// Stages holds the pair of each stage of an IGC network. A stage with the zero Pair has twice
	// the channels of the stage before: M doubles and L stays, or L doubles and M stays if
	// DoublesL is set.
	Stages   [4]Pair
	DoublesL bool
	// Ident adds identity mappings: two blocks form a residual unit.
	Ident   bool
	Variant Variant // of an IGC network
	// Depth is the depth that the name contains, or 0 if it contains none; see Network.Depth.
	Depth int
}

// nameRE divides a name into the family, the numbers or pairs, the options and the depth.
var nameRE = regexp.MustCompile(`^([A-Za-z0-9]+)(?:-([A-CE-Z][A-Z0-9x/]*))?((?:\+[A-Za-z0-9.]+)*)(?:-D(\d+))?$`)

// ParseSystem reads the name of a network. A name begins with the family and its numbers:
// "IGC-L24M2", "RegConv-W18", "ResNet-C64", "SumFusion", "IGCV2-M1K5K6K6", "Monarch-M8",
// "IGCV3-W32R6G2", "RegNetX-W48G4" or "ShuffleNet-W48G3". An IGC name may give a pair for each
// stage, as in "IGC-L40M2/L20M4/L10M8". These may follow:
//
//   - "+Ident." for identity mappings, if the family has no residual units of its own;
//   - "+2L" for stages of an IGC network that double L in place of M;
//   - "+" and a Variant of an IGC network;
//   - at the end, "-D20" for a depth of 20.
//
// For any other text it returns an error that says what a name may contain.
func ParseSystem(name string) (System, error) {
	m := nameRE.FindStringSubmatch(name)
	if m == nil {
		return System{}, unknownSystem(name)
	}
	s := System{Family: Family(m[1])}
	f := s.family()
	switch {
	case f == nil:
		return s, unknownSystem(name)
	case !s.parseNumbers(f, m[2]):
		return s, fmt.Errorf("network %q: want a name %s", name, f.want())
	}
	s.Ident = s.Family == FamilyResNet
	if m[3] != "" {
		for _, option := range strings.Split(m[3][1:], "+") {
			switch v := Variant(option); {
			case option == "Ident." || option == "Ident":
				s.Ident = true
			case option == "2L" && s.Family == FamilyIGC && !s.DoublesL && s.Stages[1] == Pair{}:
				s.DoublesL = true
			case s.Family == FamilyIGC && s.Variant == "" && v != "" && v.known():
				s.Variant = v
			default:
				return s, fmt.Errorf("network %q: +%s is not possible here; want +Ident., and for IGC +2L or "+
					"one of +Swap, +Proj, +1x3, +5x5, +ReLU, +1x1, +B2", name, option)
			}
		}
	}
	if s.Ident && !f.ident {
		why := "has residual units of its own"
		if f.unit.blocks == 0 {
			why = "cannot have identity mappings"
		}
		return s, fmt.Errorf("network %q: %s %s: want no +Ident.", name, s.Family, why)
	}
	if m[4] != "" {
		var err error
		if s.Depth, err = strconv.Atoi(m[4]); err != nil || s.Depth < 3 || s.Depth > maxDepth {
			return s, fmt.Errorf("network %q: want a depth from 3 to %d", name, maxDepth)
		}
	}
	return s, nil
}

// unknownSystem is the error for a name that begins with no family.
func unknownSystem(name string) error {
	examples := Examples()
	last := len(examples) - 1
	return fmt.Errorf("network %q: want a name like %s or %s, with +Ident. behind it for identity mappings", name,
		strings.Join(examples[:last], ", "), examples[last])
}

// parseNumbers reads the numbers of a name of the family f, of IGC those of each stage.
func (s *System) parseNumbers(f *family, text string) (ok bool) {
	if f.Family != FamilyIGC {
		s.Numbers, ok = f.parse(text)
		return ok
	}
	texts := strings.Split(text, "/")
	for i := range min(len(texts), len(s.Stages)) {
		n, ok := f.parse(texts[i])
		if !ok {
			return false
		}
		s.Stages[i] = f.partitions(n)
	}
	return len(texts) <= len(s.Stages)
}

// The limits of a network keep its counts below 2⁶³.
const (
	maxDepth = 10_000
	maxWidth = 1_000_000 // channels of a stage
	maxSide  = 100_000   // rows, columns and channels of a picture, and classes
	maxCount = 1 << 62   // multiply–adds for one picture
)

// String returns the name as ParseSystem reads it and the paper writes it, for example
// "IGC-L24M2+Ident.".
func (s System) String() string {
	var b strings.Builder
	b.WriteString(string(s.Family))
	if f := s.family(); f != nil && len(f.numbers) > 0 {
		b.WriteString("-" + f.format(s.numbers()))
	}
	for _, p := range s.Stages[1:] {
		if p == (Pair{}) {
			break
		}
		b.WriteString("/" + p.String())
	}
	if s.Ident && s.Family != FamilyResNet {
		b.WriteString("+Ident.")
	}
	if s.DoublesL {
		b.WriteString("+2L")
	}
	if s.Variant != "" {
		b.WriteString("+" + string(s.Variant))
	}
	if s.Depth > 0 {
		fmt.Fprintf(&b, "-D%d", s.Depth)
	}
	return b.String()
}

// Label returns the shortest name: "L40M2" for the plain IGC network of a pair, and String for
// every other network.
func (s System) Label() string {
	if s == PairSystem(s.Pair()) {
		return s.Pair().String()
	}
	return s.String()
}

// PairSystem returns the plain IGC network of a pair.
func PairSystem(p Pair) System { return System{Family: FamilyIGC, Stages: [4]Pair{p}} }

// stage returns the partitions of stage i ≥ 0: the pair of an IGC network; of other products the L
// partitions of the first factor, with M channels each; of the other families Pair{1, C}, where C is
// the number of channels.
func (s System) stage(i int) Pair {
	switch {
	case i > 0 && s.Stages[i] == (Pair{}):
		p := s.stage(i - 1)
		if s.DoublesL {
			return Pair{L: 2 * p.L, M: p.M}
		}
		return Pair{L: p.L, M: 2 * p.M}
	case i > 0:
		return s.Stages[i]
	}
	return s.family().partitions(s.numbers())
}

// Pair returns the pair of the first stage. It is zero for a family other than IGC.
func (s System) Pair() Pair {
	if s.Family != FamilyIGC {
		return Pair{}
	}
	return s.Stages[0]
}

// Layout says which stages a network has and what surrounds them. All layouts end with the average
// over all positions and a linear layer. D is the depth.
type Layout string

const (
	// Flat is the layout of Figure 3: a 3×3 convolution and one stage of D − 2 blocks.
	Flat Layout = "flat"
	// Stages is the layout of Tables 2 to 5 and 7: a 3×3 convolution and three stages of B blocks.
	// The second and the third stage halve the rows and columns. D is 3B + 2, and with identity
	// mappings, where n units make a stage, 6n + 2.
	Stages Layout = "stages"
	// ImageNet is the layout of Table 6: a 7×7 convolution with stride 2, a max pool, and four
	// stages of n residual units. D is 8n + 2; the paper has n = 2. In a network that doubles L
	// from stage to stage the first unit doubles the channels too, so the 7×7 convolution gives
	// half the channels of the first stage.
	ImageNet Layout = "imagenet"
)

// Layouts lists all layouts.
var Layouts = []Layout{Flat, Stages, ImageNet}

// DefaultDepth returns the depth that the paper uses: 8 for Flat (Figure 3), 18 for ImageNet
// (Table 6), and for Stages 20 (Table 7), or 50 with identity mappings (Table 5).
func (l Layout) DefaultDepth(ident bool) int {
	switch {
	case l == Flat:
		return 8
	case l == ImageNet:
		return 18
	case ident:
		return 50
	}
	return 20
}

// Plan says what a System leaves open about a network.
type Plan struct {
	Layout Layout
	// Depth is 0 for the depth of the System or, if that is 0 too, the layout's DefaultDepth.
	Depth   int
	In      Shape // the shape of a picture
	Classes int
}

// DepthOf returns the depth of a system's network in this plan.
func (p Plan) DepthOf(s System) int {
	switch {
	case p.Depth > 0:
		return p.Depth
	case s.Depth > 0:
		return s.Depth
	}
	return p.Layout.DefaultDepth(s.Ident)
}

// Network returns the system's network. It returns an error if the plan or the system is out of
// range, or if they do not go together, and says why.
func (s System) Network(p Plan) (Network, error) {
	depth := p.DepthOf(s)
	if s.Depth > 0 && s.Depth != depth {
		return Network{}, fmt.Errorf("%s: want a depth of %d, or a name without a depth", s, depth)
	}
	s.Depth = 0
	n, err := s.network(p, depth)
	if err != nil {
		return Network{}, fmt.Errorf("%s: %w", s, err)
	}
	return n, nil
}

// network is Network for a known depth, with errors that do not name the system.
func (s System) network(p Plan, depth int) (n Network, err error) {
	if err := s.checkNumbers(); err != nil {
		return n, err
	}
	stages, blocks, err := s.blocks(p.Layout, depth)
	if err != nil {
		return n, err
	}
	if p.In.C < 1 || p.In.H < 1 || p.In.W < 1 || p.Classes < 1 || max(p.In.C, p.In.H, p.In.W, p.Classes) > maxSide {
		return n, fmt.Errorf("pictures of %v, %d classes: want 1 to %d each", p.In, p.Classes, maxSide)
	}
	first := s.stage(0) // its width is that of the first convolution's output
	if p.Layout == ImageNet && s.DoublesL {
		if first.M%2 != 0 {
			return n, fmt.Errorf("M is %d: want an even M, since with +2L the first unit doubles the channels", first.M)
		}
		first.M /= 2
	}
	if err := s.checkStages(stages, first, p.Layout); err != nil {
		return n, err
	}
	b := builder{in: p.In, layout: p.Layout}
	if p.Layout == ImageNet {
		b.add(b.conv("conv0", Conv, 1, first.Width(), 7, 2))
		at := b.shape(0)
		b.add(Layer{Name: "max", Kind: MaxPool, Out: Shape{C: at.C, H: (at.H + 1) / 2, W: (at.W + 1) / 2}})
	} else {
		b.add(b.conv("conv0", Conv, 1, first.Width(), 3, 1))
	}
	prev := first
	for i := range stages {
		next := s.stage(i)
		s.addStage(&b, i, blocks, prev, next)
		prev = next
	}
	n = b.end(s.String(), depth, p.Classes)
	count := 0.0
	for _, l := range n.Layers {
		count += float64(l.Params) * float64(l.Out.H) * float64(l.Out.W)
	}
	if count > maxCount {
		return Network{}, fmt.Errorf("about 10^%d multiply–adds are too many to count", int(math.Log10(count)))
	}
	return n, nil
}

// checkNumbers returns an error if the numbers of the system are not those of its family.
func (s System) checkNumbers() error {
	f := s.family()
	if f == nil {
		return fmt.Errorf("family %q: want one of %v", s.Family, Families())
	}
	if n, ok := f.parse(f.format(s.numbers())); !ok || n != s.numbers() {
		return fmt.Errorf("want a name %s", f.want())
	}
	if f.check != nil {
		if why := f.check(s.Numbers); why != "" {
			return errors.New(why)
		}
	}
	return nil
}

// layoutStages has the number of stages of each layout.
var layoutStages = map[Layout]int{Flat: 1, Stages: 3, ImageNet: 4}

// blocks returns the number of stages of a layout and the number of blocks in each stage. It
// returns an error if the system has no network of this layout and depth.
func (s System) blocks(l Layout, depth int) (stages, blocks int, err error) {
	u := s.unit()
	stages = layoutStages[l]
	switch {
	case stages == 0:
		return 0, 0, fmt.Errorf("layout %q: want flat, stages or imagenet", l)
	case l == ImageNet && u.blocks == 0:
		return 0, 0, errors.New("the layout imagenet has residual units: want +Ident. in the name")
	case depth > maxDepth:
		return 0, 0, fmt.Errorf("depth %d: want at most %d", depth, maxDepth)
	}
	per := stages * max(u.blocks, 1) // layers that a stage of one more block, or unit, adds
	blocks = (depth - 2) / per * max(u.blocks, 1)
	if blocks < 1 || stages*blocks+2 != depth {
		rule := fmt.Sprintf("%d%s + 2", per, string("Bn"[min(u.blocks, 1)]))
		if per == 1 {
			rule = "at least 3"
		}
		return 0, 0, fmt.Errorf("depth %d: want %s", depth, rule)
	}
	if u.blocks > 0 && !u.project && stages > 1 && blocks < 2 {
		return 0, 0, fmt.Errorf("depth %d: want at least %d, since the first unit of a stage has no identity mapping, "+
			"and the last unit of the network needs one", depth, 2*stages+2)
	}
	return stages, blocks, nil
}

// checkStages returns an error if the factors of a stage do not fit its channels or those of the
// stage before, or if the name has pairs for more stages than there are. first is the pair that the
// first stage reads.
func (s System) checkStages(stages int, first Pair, l Layout) error {
	prev := first
	for i := range stages {
		next := s.stage(i)
		switch {
		case next.L < 1 || next.M < 1 || next.L > maxWidth/next.M:
			return fmt.Errorf("stage %d has %d·%d channels: want 1 to %d", i+1, next.L, next.M, maxWidth)
		case prev.Width()%next.L != 0:
			return fmt.Errorf("stage %d cannot divide the %d channels that it reads into %d partitions",
				i+1, prev.Width(), next.L)
		case next.M%s.Variant.reduction() != 0:
			return fmt.Errorf("stage %d cannot divide the %d channels of a partition by %d",
				i+1, next.M, s.Variant.reduction())
		}
		for _, in := range []Pair{prev, next} {
			if err := fit(in.Width(), s.block(l, in, next)); err != nil {
				return fmt.Errorf("stage %d: %w", i+1, err)
			}
		}
		prev = next
	}
	if stages < len(s.Stages) && s.Stages[stages] != (Pair{}) {
		return fmt.Errorf("the name has pairs for more than the %d stages of the layout %s", stages, l)
	}
	return nil
}
