package space_test

import (
	"reflect"
	"strconv"
	"strings"
	"testing"

	"igcsearch/space"

	"pgregory.net/rapid"
)

func TestFigure3(t *testing.T) {
	t.Parallel()
	t.Run("L40M2 by hand", func(t *testing.T) {
		// G = 80. conv0 has 3·9·80 = 2160 parameters, a block 9·40·4 + 2·1600 = 4640, and fc
		// 80·100 + 100 = 8100. A convolution has 1024 output positions.
		n := space.Figure3(space.Pair{L: 40, M: 2}, 6, cifar, 100)
		maps, vector := space.Shape{C: 80, H: 32, W: 32}, space.Shape{C: 80, H: 1, W: 1}
		want := []space.Layer{{Name: "conv0", Kind: space.Conv, From: -1, In: cifar, Out: maps,
			KH: 3, KW: 3, Stride: 1, Groups: 1, StepIn: 1, StepOut: 1, Branches: 1, Norm: true, ReLU: true,
			Params: 2160, MultiplyAdds: 2160 * 1024}}
		for i, name := range []string{"block1", "block2", "block3", "block4", "block5", "block6"} {
			want = append(want, space.Layer{Name: name, Kind: space.IGC, From: i, In: maps, Out: maps,
				KH: 3, KW: 3, Stride: 1, Groups: 40, StepIn: 1, StepOut: 1,
				Mixes: []space.Mix{{K: 40, Step: 2}}, Branches: 1, Norm: true, ReLU: true,
				Params: 4640, MultiplyAdds: 4640 * 1024})
		}
		want = append(want,
			space.Layer{Name: "pool", Kind: space.Pool, From: 6, In: maps, Out: vector},
			space.Layer{Name: "fc", Kind: space.Linear, From: 7, In: vector, Out: space.Shape{C: 100, H: 1, W: 1},
				Params: 8100, MultiplyAdds: 8000})
		if len(n.Layers) != len(want) {
			t.Fatalf("%d layers, want %d", len(n.Layers), len(want))
		}
		for i, l := range n.Layers {
			if !reflect.DeepEqual(l, want[i]) {
				t.Errorf("layer %d is %+v, want %+v", i, l, want[i])
			}
		}
		// 2160 + 6·4640 + 8100 and (2160 + 6·4640)·1024 + 8000.
		if n.Params() != 38_100 || n.MultiplyAdds() != 30_728_000 || n.Classes != 100 || n.Depth != 8 {
			t.Errorf("%d parameters, %d multiply–adds, %d classes", n.Params(), n.MultiplyAdds(), n.Classes)
		}
	})
	t.Run("the first convolution and a block of L24M2 are those of Table 3", func(t *testing.T) {
		// At depth 20 with 10 classes the first convolution has 1,296 parameters, and the six
		// blocks of the first stage, with 2,016 each, have 12,096.
		n := space.Figure3(space.Pair{L: 24, M: 2}, 6, cifar, 10)
		blocks := 0
		for _, l := range n.Layers[1:7] {
			blocks += l.Params
		}
		if n.Layers[0].Params != 1296 || blocks != 12_096 {
			t.Errorf("%d and %d, want 1296 and 12096", n.Layers[0].Params, blocks)
		}
	})
}

var (
	cifar   = space.Shape{C: 3, H: 32, W: 32}
	figure3 = space.Plan{Layout: space.Flat, In: cifar, Classes: 100}
	table6  = space.Plan{Layout: space.ImageNet, In: space.Shape{C: 3, H: 224, W: 224}, Classes: 1000}
)

// inStages is the plan of a network for CIFAR-10 in three stages.
func inStages(depth int) space.Plan {
	return space.Plan{Layout: space.Stages, Depth: depth, In: cifar, Classes: 10}
}

func build(t *testing.T, name string, p space.Plan) space.Network {
	t.Helper()
	s, err := space.ParseSystem(name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Network(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// rounds reports whether v, rounded to the digits that text has, is printed as text.
func rounds(v float64, text string) bool {
	digits := 0
	if _, fraction, ok := strings.Cut(text, "."); ok {
		digits = len(fraction)
	}
	return strconv.FormatFloat(v, 'f', digits, 64) == text
}

// TestTable3 compares the counts of 20 networks with all 40 numbers of the paper's Table 3, and the
// parameters of three networks with Table 7.
func TestTable3(t *testing.T) {
	t.Parallel()
	names := []string{"RegConv-W16", "RegConv-W18", "IGC-L4M8", "IGC-L24M2"}
	for _, row := range []struct {
		depth          int
		params, madds8 []string // in units of 10⁶ and 10⁸
	}{
		{8, []string{"0.075", "0.095", "0.078", "0.047"}, []string{"0.122", "0.154", "0.131", "0.099"}},
		{20, []string{"0.27", "0.34", "0.27", "0.15"}, []string{"0.406", "0.513", "0.424", "0.288"}},
		{38, []string{"0.56", "0.71", "0.57", "0.31"}, []string{"0.830", "1.05", "0.862", "0.571"}},
		{62, []string{"0.95", "1.20", "0.96", "0.52"}, []string{"1.40", "1.77", "1.45", "0.948"}},
		{98, []string{"1.53", "1.93", "1.56", "0.83"}, []string{"2.25", "2.84", "2.32", "1.51"}},
	} {
		for i, name := range names {
			n := build(t, name, inStages(row.depth))
			if p := float64(n.Params()) / 1e6; !rounds(p, row.params[i]) {
				t.Errorf("%s, D = %d: %.4fM parameters, Table 3 has %s", name, row.depth, p, row.params[i])
			}
			if m := float64(n.MultiplyAdds()) / 1e8; !rounds(m, row.madds8[i]) {
				t.Errorf("%s, D = %d: %.4fe8 multiply–adds, Table 3 has %s", name, row.depth, m, row.madds8[i])
			}
		}
	}
	for name, params := range map[string]string{"IGC-L16M32": "17.7", "IGC-L450M2": "19.3", "IGC-L32M26": "24.1"} {
		n := build(t, name, space.Plan{Layout: space.Stages, Depth: 20, In: cifar, Classes: 100})
		if p := float64(n.Params()) / 1e6; !rounds(p, params) {
			t.Errorf("%s: %.3fM parameters, Table 7 has %s", name, p, params)
		}
	}
}

// counts are the parameters and multiply–adds of a network.
type counts struct {
	params int
	madds  int64
}

// byHand has networks and their counts, worked out by hand.
var byHand = map[string]struct {
	system string
	plan   space.Plan
	want   counts
}{
	// The first convolution has 9·3·48; stage 1 has 6·2016; stage 2 has
	// 9·24·2·4 + 4·24² + 5·(9·24·16 + 4·24²); stage 3 has 9·24·4·8 + 8·24² + 5·(9·24·64 + 8·24²);
	// the linear layer has 192·10 + 10.
	"IGC-L24M2, D = 20": {"IGC-L24M2", inStages(20),
		counts{1296 + 12_096 + 32_832 + 103_680 + 1930,
			(1296+12_096)*1024 + 32_832*256 + 103_680*64 + 1920}},
	// SumFusion has 4 convolutions of 8 channels where RegConv-W16 has one of 16: 4·9·8² = 9·16².
	"SumFusion, D = 8": {"SumFusion", inStages(8),
		counts{9*3*8 + 2*2304 + (4608 + 9216) + (18_432 + 36_864) + 330,
			(216+4608)*1024 + 13_824*256 + 55_296*64 + 320}},
	// Each stage has one unit. The blocks of stage 2 have 9·24·2·4 + 2·48² and
	// 9·24·16 + 4·24², and its shortcut has 48·96/24.
	"IGC-L24M2+Ident., D = 8": {"IGC-L24M2+Ident.", inStages(8),
		counts{1296 + 2*2016 + (1728 + 4608 + 5760 + 192) + (6912 + 4*48*48 + 18_432 + 768) + 1930,
			(1296+2*2016)*1024 + 12_288*256 + 35_328*64 + 1920}},
	// ResNet-18 without norms has 11,679,912 parameters: torchvision's 11,689,512 minus 9,600
	// of the norms.
	"ResNet-C64": {"ResNet-C64", table6,
		counts{11_679_912, 1_814_073_344}},
	// The same network with 69 channels. The lines are the first convolution and stage 1; the
	// later stages; and the linear layer. A later stage has the width c, a block from c/2 to c
	// channels, three blocks from c to c, and the shortcut.
	"ResNet-C69": {"ResNet-C69", table6,
		counts{147*69 + 4*9*69*69 +
			(138*69*9 + 3*9*138*138 + 138*69) +
			(276*138*9 + 3*9*276*276 + 276*138) +
			(552*276*9 + 3*9*552*552 + 552*276) + 553_000,
			(147*69)*112*112 + (4*9*69*69)*56*56 +
				(138*69*9+3*9*138*138+138*69)*28*28 +
				(276*138*9+3*9*276*276+276*138)*14*14 +
				(552*276*9+3*9*552*552+552*276)*7*7 + 552_000}},
	// Table 6 by the authors' models. The first convolution has 7·7·3·100. Stage 1 has a block
	// from 100 to 200 channels (9·100·1·2 + 2·100²), three blocks of 200 (9·100·4 + 2·100²),
	// and the shortcut of 100 partitions (200·1). The later stages have L = 200, 400, 800.
	// The paper prints 8.61 and 1.3.
	"IGC-L100M2+Ident.+2L": {"IGC-L100M2+Ident.+2L", table6,
		counts{8_607_700,
			14_700*112*112 + (21_800+3*23_600+200)*56*56 + (83_600+3*87_200+400)*28*28 +
				(327_200+3*334_400+800)*14*14 + (1_294_400+3*1_308_800+1600)*7*7 + 1_600_000}},
	// The linear layers have 1025·1000 and 2049·1000; without them the authors' models have 11.207
	// and 11.441 million. In a stage of the width G the first block has 9·L·(M/2)·M + G·L, the
	// others have 9·L·M² + G·L, and the shortcut has G/2·M.
	"IGC-L4M32+Ident.": {"IGC-L4M32+Ident.", table6,
		counts{11_207_040 + 1_025_000,
			147*128*112*112 + 4*(36_864+512)*56*56 +
				(73_728+1024+3*(147_456+1024)+8192)*28*28 +
				(294_912+2048+3*(589_824+2048)+32_768)*14*14 +
				(1_179_648+4096+3*(2_359_296+4096)+131_072)*7*7 + 1_024_000}},
	"IGC-L16M16+Ident.": {"IGC-L16M16+Ident.", table6,
		counts{11_440_896 + 2_049_000,
			147*256*112*112 + 4*(36_864+4096)*56*56 +
				(73_728+8192+3*(147_456+8192)+8192)*28*28 +
				(294_912+16_384+3*(589_824+16_384)+32_768)*14*14 +
				(1_179_648+32_768+3*(2_359_296+32_768)+131_072)*7*7 + 2_048_000}},
	// These networks have six blocks, G = 80 and S = 9.
	"primary 1×1, secondary 3×3": {"IGC-L40M2+Swap", figure3,
		counts{2160 + 6*(40*4+9*2*1600) + 8100, (2160+6*(160+28_800))*1024 + 8000}},
	"linear projection": {"IGC-L40M2+Proj", figure3,
		counts{2160 + 6*(1440+6400) + 8100, (2160+6*7840)*1024 + 8000}},
	"1×3 and 3×1": {"IGC-L40M2+1x3", figure3,
		counts{2160 + 6*(480+480+3200) + 8100, (2160+6*4160)*1024 + 8000}},
	"5×5": {"IGC-L40M2+5x5", figure3,
		counts{2160 + 6*(4000+3200) + 8100, (2160+6*7200)*1024 + 8000}},
	"a bottleneck": {"IGC-L40M2+B2", figure3,
		counts{2160 + 6*(720+3200) + 8100, (2160+6*3920)*1024 + 8000}},
	"a pair for each stage": {"IGC-L24M2/L12M8/L48M4",
		inStages(5),
		counts{1296 + 2016 + (9*12*4*8 + 8*144) + (9*48*2*4 + 4*48*48) + 1930,
			(1296+2016)*1024 + 4608*256 + 12_672*64 + 1920}},
}

// TestSystemsByHand compares the counts of networks with sums worked out by hand.
func TestSystemsByHand(t *testing.T) {
	t.Parallel()
	for name, c := range byHand {
		t.Run(name, func(t *testing.T) {
			n := build(t, c.system, c.plan)
			if got := (counts{n.Params(), n.MultiplyAdds()}); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// TestVariantParams compares the formulas of the variants with the layers of networks.
func TestVariantParams(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := space.System{Family: space.FamilyIGC, Variant: rapid.SampledFrom(variants).Draw(t, "variant")}
		s.Stages[0] = space.Pair{L: rapid.IntRange(1, 20).Draw(t, "L"), M: rapid.IntRange(1, 20).Draw(t, "M")}
		want := s.Variant.Params(s.Stages[0], 9)
		n, err := s.Network(space.Plan{Layout: space.Flat, Depth: 4, In: cifar, Classes: 10})
		if (err != nil) != (want == 0) {
			t.Fatalf("%s: %d parameters, but %v", s, want, err)
		}
		one, _ := s.Network(space.Plan{Layout: space.Flat, Depth: 3, In: cifar, Classes: 10})
		if got := n.Params() - one.Params(); err == nil && got != want {
			t.Fatalf("%s: a block has %d, the formula %d", s, got, want)
		}
	})
}

// systems draws any network that ParseSystem can read.
var systems = rapid.Custom(func(t *rapid.T) space.System {
	s := space.System{Family: rapid.SampledFrom(families).Draw(t, "family")}
	s.Depth = rapid.SampledFrom([]int{0, 8, 20, 50}).Draw(t, "depth")
	ident := rapid.Bool().Draw(t, "ident")
	small := rapid.IntRange(1, 12)
	set := func(numbers ...int) { copy(s.Numbers[:], numbers) }
	switch s.Family {
	case space.FamilyResNet:
		s.Numbers[0], s.Ident = rapid.IntRange(1, 99).Draw(t, "width"), true
	case space.FamilyRegConv:
		s.Numbers[0], s.Ident = rapid.IntRange(1, 99).Draw(t, "width"), ident
	case space.FamilyMonarch:
		s.Numbers[0], s.Ident = small.Draw(t, "M"), ident
	case space.FamilyIGCV2:
		s.Numbers[0], s.Ident = small.Draw(t, "M"), ident
		copy(s.Numbers[1:], rapid.SliceOfN(rapid.IntRange(2, 9), 1, 19).Draw(t, "K"))
	case space.FamilyIGCV3:
		g := small.Draw(t, "G")
		set(g*small.Draw(t, "W/G"), small.Draw(t, "R"), g, rapid.SampledFrom([]int{1, g}).Draw(t, "G₂"))
	case space.FamilyRegNetX:
		g := small.Draw(t, "G")
		set(g*small.Draw(t, "W/G"), g)
	case space.FamilyShuffleNet:
		g := small.Draw(t, "G")
		set(4*g*small.Draw(t, "W/4G"), g)
	case space.FamilyIGC:
		s.Ident = ident
		for i := range rapid.IntRange(1, 4).Draw(t, "stages") {
			s.Stages[i] = pairs.Draw(t, "pair")
		}
		s.DoublesL = s.Stages[1] == space.Pair{} && rapid.Bool().Draw(t, "2L")
		s.Variant = rapid.SampledFrom(variants).Draw(t, "variant")
	}
	return s
})

func TestParseSystem(t *testing.T) {
	t.Parallel()
	t.Run("reads what String writes", rapid.MakeCheck(func(t *rapid.T) {
		s := systems.Draw(t, "system")
		if got, err := space.ParseSystem(s.String()); err != nil || got != s {
			t.Fatalf("%+v is %s, which is %+v, %v", s, s, got, err)
		}
	}))
	t.Run("knows the paper's names", func(t *testing.T) {
		for name, want := range map[string]string{
			"IGC-L24M2+Ident.": "IGC-L24M2+Ident.", "IGC-L24M2+Ident": "IGC-L24M2+Ident.",
			"ResNet-C64": "ResNet-C64", "SumFusion": "SumFusion", "RegConv-W18+Ident.-D50": "RegConv-W18+Ident.-D50",
			"SumFusion-D20": "SumFusion-D20", "IGCV2-M1K5K6K6-D14": "IGCV2-M1K5K6K6-D14", "Monarch-M8": "Monarch-M8",
			"IGCV3-W32R6G2": "IGCV3-W32R6G2", "IGCV3-W32R6G2x2": "IGCV3-W32R6G2", "IGCV3-W32R6G2x4": "IGCV3-W32R6G2x4",
			"RegNetX-W48G4": "RegNetX-W48G4", "ShuffleNet-W48G3": "ShuffleNet-W48G3", "IGC-L8M8+1x1": "IGC-L8M8+1x1",
		} {
			if s, err := space.ParseSystem(name); err != nil || s.String() != want {
				t.Errorf("%s: %v, %v", name, s, err)
			}
		}
	})
	for _, name := range []string{"", "IGC", "IGC-L0M2", "IGC-24x2", "RegConv-W0", "RegConv-W18+Swap",
		"SumFusion+Ident.", "IGC-L4M2+B1", "IGC-L4M2+Swap+5x5", "IGC-L4M2/L2M4+2L", "IGC-L4M2-D2",
		"IGCV2-M1", "IGCV2-M1K1", "IGCV2-K5M1", "IGCV2-M1K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2", "IGCV2-M1K5x6",
		"IGCV3-W32R6", "IGCV3-W32R6G2x", "IGCV3-W32R6G2+Ident.", "IGCV3-W32R6G2x4x4", "Monarch-M0", "Monarch-M8K2",
		"RegNetX-W48", "RegNetX-W48G4+5x5", "ShuffleNet-W48G3+Ident.", "ShuffleNet-G3W48", "SumFusion-W8", "VGG-W16",
		"RegConv", "RegConv-W", "regconv-W18", "IGC-24M2", "IGC-L4M2/L4M2/L4M2/L4M2/L4M2", "IGC-L4M2+", "SumFusion-",
		"IGC-L99999999999M2", "IGC-L4M2-D99999999999999999999", "RegConv-W99999999999999999999"} {
		t.Run("refuses "+name, func(t *testing.T) {
			if s, err := space.ParseSystem(name); err == nil {
				t.Errorf("it is %+v", s)
			}
		})
	}
}

// FuzzParseSystem: a text is refused in one line, or names a system whose name means the same, and
// whose network can be built or is refused.
func FuzzParseSystem(f *testing.F) {
	for _, name := range append(space.Examples(), "IGC-L24M2/L12M8/L48M4+Ident.-D20", "IGCV3-W32R6G2x4-D8", "IGC-L8M8+1x1",
		"IGC-L100M2+Ident.+2L", "SumFusion-D20", "", "-", "IGCV2-M0K2", "IGCV2-M1K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2K2",
		"RegNetX-W5G2", "ShuffleNet-W48G5", "IGCV3-W00032R6G2", "Monarch-M100000", "IGCV2-M99999K99999K99999") {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		s, err := space.ParseSystem(name)
		if err != nil {
			if strings.Contains(err.Error(), "\n") && !strings.Contains(name, "\n") {
				t.Errorf("%q: %v has several lines", name, err)
			}
			return
		}
		if again, err := space.ParseSystem(s.String()); err != nil || again != s {
			t.Errorf("%q is %+v, whose name %s is %+v, %v", name, s, s, again, err)
		}
		for _, layout := range space.Layouts {
			if n, err := s.Network(space.Plan{Layout: layout, In: cifar, Classes: 10}); err == nil && n.Params() < 1 {
				t.Errorf("%q has %d parameters", name, n.Params())
			}
		}
	})
}

func TestNetworkRefuses(t *testing.T) {
	t.Parallel()
	for name, plan := range map[string]space.Plan{
		"IGC-L24M2":             {Layout: space.Stages, Depth: 9},
		"IGC-L24M2+Ident.":      {Layout: space.Stages, Depth: 21},
		"IGC-L24M2-D8":          {Layout: space.Stages, Depth: 20},
		"IGC-L24M3+B2":          {Layout: space.Flat},
		"IGC-L4M4/L3M4":         {Layout: space.Stages},
		"IGC-L4M4/L2M4":         {Layout: space.Flat},
		"RegConv-W8":            {Layout: space.ImageNet},
		"SumFusion":             {Layout: "round"},
		"IGC-L90000M90000":      {Layout: space.Flat},
		"RegConv-W99999":        {Layout: space.Flat, Classes: -1},
		"IGC-L2M2+2L+B2+Ident.": {Layout: space.ImageNet, Depth: 17},
		"IGC-L4M3+2L+Ident.":    {Layout: space.ImageNet},
		"RegNetX-W48G5":         {Layout: space.Flat},
		"ShuffleNet-W48G5":      {Layout: space.Flat},
		"ShuffleNet-W6G1":       {Layout: space.Flat},
		"IGCV3-W32R6G3":         {Layout: space.Flat},
		"IGCV3-W32R6G2":         {Layout: space.Stages, Depth: 5},
		"IGCV3-W1000R1001G2":    {Layout: space.Flat},
		"IGCV2-M1K1001K1001":    {Layout: space.Flat},
		"Monarch-M1001":         {Layout: space.Flat},
		"Monarch-M4":            {Layout: space.ImageNet},
		"RegNetX-W48G4":         {Layout: space.Stages, Depth: 9},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := space.ParseSystem(name)
			if err != nil {
				t.Fatal(err)
			}
			if plan.Classes == 0 {
				plan.Classes = 10
			}
			plan.In = cifar
			if n, err := s.Network(plan); err == nil {
				t.Errorf("%d layers", len(n.Layers))
			}
		})
	}
}

// TestNetworksChain checks that each layer fits the layers that it reads, in any network.
func TestNetworksChain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := systems.Draw(t, "system")
		sides := rapid.IntRange(1, 40)
		in := space.Shape{C: rapid.IntRange(1, 4).Draw(t, "C"), H: sides.Draw(t, "H"), W: sides.Draw(t, "W")}
		layout := rapid.SampledFrom(space.Layouts).Draw(t, "layout")
		n, err := s.Network(space.Plan{Layout: layout, In: in, Classes: 7})
		if err != nil {
			return
		}
		names := map[string]bool{}
		depth := 0
		for i, l := range n.Layers {
			want := in
			if l.From >= i {
				t.Fatalf("%s reads a later layer", l.Name)
			} else if l.From >= 0 {
				want = n.Layers[l.From].Out
			}
			if l.In != want || names[l.Name] {
				t.Fatalf("%s reads %v, but gets %v; or its name occurs twice", l.Name, l.In, want)
			}
			if l.Kind == space.Add && (n.Layers[l.Shortcut].Out != l.Out || n.Layers[l.From].Out != l.Out) {
				t.Fatalf("%s adds %v and %v", l.Name, n.Layers[l.From].Out, n.Layers[l.Shortcut].Out)
			}
			if (l.Kind == space.Conv || l.Kind == space.IGC) && (l.In.C%l.Groups != 0 || l.Out.C%l.Groups != 0) {
				t.Fatalf("%s: %d groups of %v to %v", l.Name, l.Groups, l.In, l.Out)
			}
			switch l.Kind {
			case space.IGC, space.Linear:
				depth++
			case space.Conv:
				if l.KH > 1 || l.KW > 1 {
					depth++
				}
			}
			names[l.Name] = true
		}
		if want := (space.Shape{C: 7, H: 1, W: 1}); n.Layers[len(n.Layers)-1].Out != want {
			t.Fatalf("ends in %v", n.Layers[len(n.Layers)-1].Out)
		}
		if s.Variant != space.Split && (s.Variant != space.Pointwise || !s.Ident) && depth != n.Depth {
			t.Fatalf("%s has %d layers, its depth is %d", s, depth, n.Depth)
		}
	})
}
