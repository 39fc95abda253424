package search_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func budgetStudy() search.Study {
	s := search.Default()
	s.Name, s.Dataset, s.Budget = "some", "cifar100", 4672
	return s
}

func folderStudy(size int) search.Study {
	s := budgetStudy()
	s.Dataset, s.Augment, s.Size = "folder", search.AugmentScaleCropMirror, size
	return s
}

func normal(t *testing.T, s search.Study) search.Study {
	t.Helper()
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	t.Run("a budget becomes its pairs", func(t *testing.T) {
		s := normal(t, budgetStudy())
		// The paper's Table 1 (i).
		if want := []string{"64x1", "40x2", "28x3", "12x6", "6x9", "5x10", "3x13", "2x16",
			"1x23"}; !slices.Equal(s.Pairs, want) {
			t.Errorf("got %v, want %v", s.Pairs, want)
		}
	})
	t.Run("a budget of families becomes the widest networks of each", func(t *testing.T) {
		s := budgetStudy()
		s.Families, s.PerFamily = []string{"RegNetX", "IGCV2"}, 2
		s = normal(t, s)
		want := []string{"RegNetX-W46G1", "RegNetX-W44G2", "IGCV2-M1K2K2K2K2K2K2K3", "IGCV2-M1K2K2K2K2K3K4"}
		if !slices.Equal(s.Systems, want) || len(s.Pairs) > 0 || s.Budget != 4672 || s.OfPairs() {
			t.Errorf("got %+v, want %v", s.Design, want)
		}
		if again := normal(t, s); !reflect.DeepEqual(again, s) {
			t.Errorf("the normal form of %+v is %+v", s, again)
		}
		if got, want := s.LeftOut(), "3 of the 5 networks of RegNetX, 45 of the 47 networks of IGCV2"; got != want {
			t.Errorf("it leaves out %q, want %q", got, want)
		}
		s.Systems = s.Systems[:3]
		if s = normal(t, s); s.Budget != 0 || s.Families != nil || s.PerFamily != 0 || s.Tolerance != 0 ||
			len(s.Systems) != 3 || s.LeftOut() != "" {
			t.Errorf("a list of some of the networks keeps the budget: %+v", s.Design)
		}
	})
	t.Run("a network of two families is chosen once", func(t *testing.T) {
		s := budgetStudy()
		s.Families, s.PerFamily = []string{"IGC", "IGCV2"}, 100
		s = normal(t, s)
		// All nine pairs but L1M23 are among the 47 products.
		if len(s.Systems) != 48 || !slices.Contains(s.Systems, "IGC-L40M2") || slices.Contains(s.Systems, "IGCV2-M2K40") {
			t.Errorf("%d networks: %v", len(s.Systems), s.Systems)
		}
		s.Systems, s.PerFamily = nil, 3
		s = normal(t, s)
		if got, want := s.LeftOut(), "6 of the 9 networks of IGC, 36 of the 39 networks of IGCV2"; got != want {
			t.Errorf("it leaves out %q, want %q", got, want)
		}
	})
	t.Run("families can share a budget of the whole network", func(t *testing.T) {
		s := budgetStudy()
		s.Budget, s.StageMultiplyAdds, s.Families, s.PerFamily = 0, 30_728_000, []string{"IGC", "ShuffleNet"}, 3
		s = normal(t, s)
		if len(s.Systems) != 6 || !slices.Contains(s.Systems, "IGC-L40M2") {
			t.Errorf("got %v, want IGC-L40M2 among them", s.Systems)
		}
	})
	t.Run("a kernel of 1 and the variant 1x1 are the same study", func(t *testing.T) {
		a, b := budgetStudy(), budgetStudy()
		a.Budget, b.Budget = 1024, 1024
		a.Kernel, b.Variant = 1, space.Pointwise
		if x, y := normal(t, a), normal(t, b); !reflect.DeepEqual(x, y) || x.Fingerprint() != y.Fingerprint() ||
			!slices.Contains(x.SystemList(), space.System{Family: space.FamilyIGC, Variant: space.Pointwise,
				Stages: [4]space.Pair{{L: 8, M: 8}}}) {
			t.Errorf("%+v and %+v differ, or have no L8M8", x, y)
		}
		// A variant is part of the extent, this one too, and the networks of two variants have their names.
		plain := normal(t, budgetStudy())
		joined, err := normal(t, a).Join(plain)
		if x := normal(t, a); x.Fingerprint() != plain.Fingerprint() || err != nil || joined.Kernel != 9 ||
			!slices.Contains(joined.Systems, "IGC-L8M8+1x1") || !slices.Contains(joined.Systems, "IGC-L40M2") {
			t.Errorf("with both kernels it is %+v, %v", joined.Design, err)
		}
	})
	t.Run("spelling and order of pairs do not matter", func(t *testing.T) {
		a, b := budgetStudy(), budgetStudy()
		a.Pairs, b.Pairs = []string{"L40M2", "64x1", "30x2"}, []string{"64x1", "30x2", "40x2"}
		if x, y := normal(t, a), normal(t, b); !reflect.DeepEqual(x, y) || x.Fingerprint() != y.Fingerprint() {
			t.Errorf("%+v and %+v differ", x, y)
		}
		if !slices.Equal(a.Pairs, []string{"L40M2", "64x1", "30x2"}) {
			t.Errorf("Normalize changed its argument: %v", a.Pairs)
		}
	})
	t.Run("Normalize clears a budget beside listed pairs, unless it chooses these pairs", func(t *testing.T) {
		listed := budgetStudy()
		listed.Pairs = []string{"40x2", "64x1"}
		want := normal(t, listed)
		if want.Budget != 0 || want.Tolerance != 0 || want.All {
			t.Errorf("budget %d, tolerance %g, all %v, want none", want.Budget, want.Tolerance, want.All)
		}
		other := listed
		other.Budget, other.Tolerance, other.All = 0, 0.5, true
		if got := normal(t, other); got.Fingerprint() != want.Fingerprint() {
			t.Errorf("%+v and %+v train the same and have different fingerprints", got, want)
		}
		own := budgetStudy()
		own.Pairs = slices.Clone(normal(t, own).Pairs)
		slices.Reverse(own.Pairs)
		if got, want := normal(t, own), normal(t, budgetStudy()); !reflect.DeepEqual(got, want) {
			t.Errorf("the pairs of the budget, listed: %+v, want %+v", got, want)
		}
	})
	t.Run("normalising twice changes nothing", func(t *testing.T) {
		listed := budgetStudy()
		listed.Pairs = []string{"40x2"}
		for _, s := range []search.Study{normal(t, budgetStudy()), normal(t, listed)} {
			if again := normal(t, s); !reflect.DeepEqual(again, s) {
				t.Errorf("%+v became %+v", s, again)
			}
		}
	})
	t.Run("Normalize clears the settings of other strategies", func(t *testing.T) {
		plain := normal(t, budgetStudy())
		s := budgetStudy()
		s.Strategy, s.Race.Alpha, s.Halving.Reduction = search.StrategyGrid, 7, -1
		if got := normal(t, s); got.Fingerprint() != plain.Fingerprint() ||
			strings.Contains(string(got.Settings()), "alpha") {
			t.Errorf("grid with the settings of others is another study: %s", got.Settings())
		}
		for test, first := range map[string]int{"": 2, search.RacePaired: 3, search.RaceSignedRank: 4} {
			s := plain
			s.Strategy, s.Race = search.StrategyRace, search.Race{Test: test, Alpha: 0.05, Systems: 64}
			if got := normal(t, s); got.Race.MinSeeds != first || got.Fingerprint() != plain.Fingerprint() {
				t.Errorf("test %q: %s, want %d seeds first", test, got.Settings(), first)
			}
		}
		// A study that was stored before there was a choice has no test.
		s.Strategy, s.Race = search.StrategyRace, search.Race{Test: search.RacePooled, Alpha: 0.05, Systems: 64}
		if got := string(normal(t, s).Settings()); !strings.Contains(got, `"race":{"alpha":0.05,"min_seeds":2,`) {
			t.Errorf("the default test is stored: %s", got)
		}
		for _, name := range []string{search.StrategyHalving, search.StrategyRace} {
			s := budgetStudy()
			s.Strategy = name
			got := normal(t, s)
			if bytes.Equal(got.Settings(), plain.Settings()) || !reflect.DeepEqual(normal(t, got), got) {
				t.Errorf("%s: %s", name, got.Settings())
			}
			// A stored study of grid has no settings of another strategy, and can get one.
			s = plain
			s.Strategy = name
			if again := normal(t, s); !reflect.DeepEqual(again, got) {
				t.Errorf("%s after grid: %s, want %s", name, again.Settings(), got.Settings())
			}
		}
	})
}

func TestNormalizeSizes(t *testing.T) {
	t.Parallel()
	t.Run("the sizes of a folder follow from Size, handsigns has two sizes, and other data sets have none",
		func(t *testing.T) {
			// He et al. cut 224 out of 256 to 480.
			s := normal(t, folderStudy(224))
			if s.Resize != 256 || s.ResizeMax != 480 || s.Pad != 0 {
				t.Errorf("resize %d, resize_max %d, pad %d, want 256, 480 and 0", s.Resize, s.ResizeMax, s.Pad)
			}
			if again := normal(t, s); !reflect.DeepEqual(again, s) {
				t.Errorf("normalised twice, %+v became %+v", s, again)
			}
			plain := folderStudy(64)
			plain.Augment = search.AugmentNone
			if s := normal(t, plain); s.Resize != 73 || s.ResizeMax != 0 {
				t.Errorf("resize %d, resize_max %d, want 73 (64·256/224) and 0", s.Resize, s.ResizeMax)
			}
			for _, s := range []search.Study{budgetStudy(), {Name: "x"}} {
				text := string(s.Settings())
				if strings.Contains(text, "size") || strings.Contains(text, "unreadable") {
					t.Errorf("the stored form has sizes: %s", text)
				}
			}
			for _, c := range []struct{ size, side int }{{0, 16}, {16, 16}, {32, 32}} {
				signs := budgetStudy()
				signs.Dataset, signs.Size = "handsigns", c.size
				s := normal(t, signs)
				if in, classes := s.Shape(); in != (space.Shape{C: 3, H: c.side, W: c.side}) || classes != 10 ||
					s.Resize != 0 {
					t.Errorf("hand signs of size %d have the shape %v and %d classes, resize %d", c.size, in, classes,
						s.Resize)
				}
				if again := normal(t, s); !reflect.DeepEqual(again, s) {
					t.Errorf("normalised twice, %+v became %+v", s, again)
				}
			}
			held := budgetStudy()
			held.Dataset, held.Validation = "svhn", search.SVHNValidation
			normal(t, held)
		})
}

// wrongSettings changes a study in ways that Normalize refuses. The keys are parts of the errors.
var wrongSettings = map[string]func(*search.Study){
	`name "a/b"`:           func(s *search.Study) { s.Name = "a/b" },
	`dataset "mnist"`:      func(s *search.Study) { s.Dataset = "mnist" },
	`train_pictures -1`:    func(s *search.Study) { s.TrainPictures = -1 },
	`test_pictures -1`:     func(s *search.Study) { s.TestPictures = -1 },
	`validation -1`:        func(s *search.Study) { s.Validation = -1 },
	`curve "train"`:        func(s *search.Study) { s.Split = "train" },
	`needs validation > 0`: func(s *search.Study) { s.Split = "validation" },
	`augment "flip"`:       func(s *search.Study) { s.Augment = "flip" },
	`pad 17`:               func(s *search.Study) { s.Pad = 17 },
	`strategy "best": want grid, halving, race`: func(s *search.Study) { s.Strategy = "best" },
	`race.alpha 1: want`:                        func(s *search.Study) { s.Strategy, s.Race.Alpha = "race", 1 },
	`race.alpha 0.0001: want 0.001 or more`:     func(s *search.Study) { s.Strategy, s.Race.Alpha = "race", 0.0001 },
	`race.test "welch": want pooled, paired, signed-rank`: func(s *search.Study) {
		s.Strategy, s.Race.Test = "race", "welch"
	},
	`race.min_seeds 6: want 2 to seeds, 5`: func(s *search.Study) {
		s.Strategy, s.Race.MinSeeds = "race", 6
	},
	`strategy race: seeds 1: want 2`: func(s *search.Study) { s.Strategy, s.Seeds = "race", search.FirstSeeds(1) },
	`race.systems 9: want 10 to 1000`: func(s *search.Study) {
		s.Strategy, s.Race.Systems = "race", 9
	},
	`halving.reduction 1: want`: func(s *search.Study) {
		s.Strategy, s.Halving.Reduction = "halving", 1
	},
	`halving.min_epochs -1: want`: func(s *search.Study) {
		s.Strategy, s.Halving.MinEpochs = "halving", -1
	},
	`halving.min_epochs 267: want at most 266, two thirds of the epochs`: func(s *search.Study) {
		s.Strategy, s.Halving.MinEpochs = "halving", 267
	},
	`strategy halving: epochs 1: want 2 or more`: func(s *search.Study) {
		s.Strategy, s.Epochs = "halving", 1
	},
	`kernel 25`:    func(s *search.Study) { s.Kernel = 25 },
	`tolerance 1:`: func(s *search.Study) { s.Tolerance = 1 },
	`depths: IGC-L4M2-D20 has a depth in its name`: func(s *search.Study) {
		s.Budget, s.Pairs, s.Layout, s.Systems, s.Depths = 0, nil, "stages", []string{"IGC-L4M2-D20"}, []int{8}
	},
	`blocks 0`:              func(s *search.Study) { s.Blocks = 0 },
	`seeds 0`:               func(s *search.Study) { s.Seeds = search.FirstSeeds(0) },
	`epochs 0`:              func(s *search.Study) { s.Epochs = 0 },
	`batch 0`:               func(s *search.Study) { s.Batch = 0 },
	`learning_rate 0`:       func(s *search.Study) { s.LearningRate = 0 },
	`momentum 1`:            func(s *search.Study) { s.Momentum = 1 },
	`weight_decay -1`:       func(s *search.Study) { s.WeightDecay = -1 },
	`evaluate_every 0`:      func(s *search.Study) { s.EvaluateEvery = 0 },
	`workers -1`:            func(s *search.Study) { s.Workers = -1 },
	`drops [0.5 0.5]`:       func(s *search.Study) { s.Drops = []float64{0.5, 0.5} },
	`drops [1]`:             func(s *search.Study) { s.Drops = []float64{1} },
	`budget 0: want`:        func(s *search.Study) { s.Budget = 0 },
	`budget -1: want`:       func(s *search.Study) { s.Budget = -1 },
	`pair "40"`:             func(s *search.Study) { s.Pairs = []string{"40"} },
	`L40M2 is listed twice`: func(s *search.Study) { s.Pairs = []string{"40x2", "L40M2"} },
	`validation 5000: want 0 (none) or 6000 of svhn`: func(s *search.Study) {
		s.Dataset, s.Validation = "svhn", 5000
	},
	`size 32: only pictures of dataset "folder"`: func(s *search.Study) { s.Size = 32 },
	`size 24: want 16 or 32`:                     func(s *search.Study) { s.Dataset, s.Size = "handsigns", 24 },
	`resize 33: only pictures of dataset "folder"`: func(s *search.Study) {
		s.Dataset, s.Resize = "handsigns", 33
	},
	`resize 32: only`:     func(s *search.Study) { s.Resize = 32 },
	`resize_max 32: only`: func(s *search.Study) { s.ResizeMax = 32 },
	`augment "scale-crop-mirror": it is for dataset "folder"`: func(s *search.Study) {
		s.Augment = search.AugmentScaleCropMirror
	},
	`size 0: want 8 to 1024`: func(s *search.Study) { *s = folderStudy(0) },
	`augment "crop-mirror": it`: func(s *search.Study) {
		*s = folderStudy(32)
		s.Augment = search.AugmentCropMirror
	},
	`resize 31: want size, 32`: func(s *search.Study) { *s = folderStudy(32); s.Resize = 31 },
	`resize_max 39: want resize`: func(s *search.Study) {
		*s = folderStudy(32)
		s.Resize, s.ResizeMax = 40, 39
	},
	`resize_max 50: only augment "scale-crop-mirror"`: func(s *search.Study) {
		*s = folderStudy(32)
		s.Augment, s.ResizeMax = search.AugmentNone, 50
	},
	`precision "fp8": want "f32", "tf32", "bf16" or "bf16-amx"`: func(s *search.Study) { s.Precision = "fp8" },
	`drops [0.3]: only schedule "step" has them: set it too`: func(s *search.Study) {
		s.Schedule, s.Drops = search.ScheduleLinear, []float64{0.3}
	},
	`kernel 4: want 9`:          func(s *search.Study) { s.Kernel = 4 },
	`kernel 1: the variant 5x5`: func(s *search.Study) { s.Kernel, s.Variant = 1, space.Large },
	`kernel 1: it has no effect beside systems: give these names with 1×1 kernels, like IGC-L24M2+1x1`: func(s *search.Study) {
		s.Budget, s.Kernel, s.Systems = 0, 1, []string{"IGC-L24M2"}
	},
	`families: no network of Monarch lies within 2.4 % of 4672 parameters of a block; raise tolerance`: func(s *search.Study) {
		s.Families = []string{"Monarch"}
	},
	`families: family "VGG": want one of`: func(s *search.Study) { s.Families = []string{"VGG"} },
	`families: "IGC" is listed twice`:     func(s *search.Study) { s.Families = []string{"IGC", "IGC"} },
	`families: they choose networks without a variant by budget`: func(s *search.Study) {
		s.Families, s.Variant = []string{"IGC"}, space.Large
	},
	`per_family: it has no effect`:   func(s *search.Study) { s.PerFamily = 3 },
	`per_family -1: want 1 to 10000`: func(s *search.Study) { s.Families, s.PerFamily = []string{"IGC"}, -1 },
	`no pair lies within 0.001 %`:    func(s *search.Study) { s.Budget, s.Tolerance = 5, 0.00001 },
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	t.Run("every wrong setting is named", func(t *testing.T) {
		for want, change := range wrongSettings {
			s := budgetStudy()
			change(&s)
			if _, err := s.Normalize(); err == nil || !strings.Contains(err.Error(), want) ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, want)
			}
		}
		_, err := search.Study{}.Normalize()
		if err == nil || strings.Count(err.Error(), "\n") < 8 {
			t.Errorf("the empty study: got %v, want a line for each wrong setting", err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	base := budgetStudy()
	base.DataSum = "0123"
	base = normal(t, base)

	t.Run("the stored form and the fingerprint never change, because stored studies could not go on", func(t *testing.T) {
		golden := filepath.Join("testdata", "settings.golden")
		older := budgetStudy() // the settings before WeightDecayOn existed
		older.DataSum, older.WeightDecayOn = "0123", search.DecayWeights
		older = normal(t, older)
		got := string(older.Settings()) + "\n" + older.Fingerprint() + "\n" + string(base.Settings()) + "\n" +
			base.Fingerprint() + "\n"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})

	t.Run("every setting counts but the extent, the strategy and those that change no result", func(t *testing.T) {
		changes := []string{"Split", "Budget", "Kernel", "Tolerance", "All", "Pairs", "Systems", "StageParams",
			"StageMultiplyAdds", "StageTop", "Families", "PerFamily", "Depths", "Variant", "Seeds", "Strategy", "Halving", "Race", "Peak"}
		free := []string{"Title", "Workers", "MaxWallTime", "MaxTrials", "MaxEpochs", "MaxDeviceHours",
			"TrialTimeLimit", "RetryCrashed", "RetryTimeout", "RetryMemory", "StopAfter", "KeepCheckpoints", "KeepBest",
			"CheckpointQuota"}
		for _, field := range reflect.VisibleFields(reflect.TypeOf(base)) {
			if field.Anonymous || field.Name == "Axes" { // see TestGrowAxes
				continue
			}
			s := base
			f := reflect.ValueOf(&s).Elem().FieldByIndex(field.Index)
			switch f.Interface().(type) {
			case string, space.Variant, space.Layout:
				f.SetString(f.String() + "x")
			case int, int64:
				f.SetInt(f.Int() + 1)
			case float64, search.Tolerance:
				f.SetFloat(f.Float() + 1)
			case bool:
				f.SetBool(!f.Bool())
			case search.Halving, search.Race, search.Peak: // base has none
				f.FieldByName("Systems").SetInt(20)
			case []int: // base has none
				f.Set(reflect.ValueOf([]int{8}))
			default: // lists
				switch {
				case field.Name == "Systems": // base has none
					f.Set(reflect.ValueOf([]string{"SumFusion"}))
				case field.Name == "Families": // base has none
					f.Set(reflect.ValueOf([]string{"IGCV2"}))
				default:
					f.Set(f.Slice(0, f.Len()-1))
				}
			}
			isChange, isFree := slices.Contains(changes, field.Name), slices.Contains(free, field.Name)
			isName := field.Name == "Name" // it says which study is meant
			if same := s.Fingerprint() == base.Fingerprint(); same != (isChange || isFree || isName) {
				t.Errorf("another %s: the same fingerprint: %v", field.Name, same)
			}
			if same := bytes.Equal(s.Settings(), base.Settings()); same != isFree {
				t.Errorf("another %s: the same settings: %v, want %v", field.Name, same, isFree)
			}
			diff, changed := search.Diff(base, s), search.Changes(base, s)
			if (len(diff) == 1) != (!isChange && !isFree && !isName) || (len(changed) == 1) != isChange {
				t.Errorf("another %s: Diff is %q, Changes %q", field.Name, diff, changed)
			}
		}
	})

	t.Run("a difference reads like a sentence", func(t *testing.T) {
		s := base
		s.Epochs, s.DataSum = 20, "4567"
		if got, want := search.Diff(base, s), []string{"epochs: 400 there, 20 here",
			"data_sum: 0123 there, 4567 here"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		s = search.Study{Selection: search.Selection{Strategy: search.StrategyRace}}
		s.Seeds = search.Seeds{5, 6, 7}
		if got, want := search.Changes(search.Study{Design: search.Design{Seeds: search.FirstSeeds(5)}}, s),
			[]string{"seeds: 5 there, [5, 6, 7] here", "strategy: grid there, race here"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestTrials(t *testing.T) {
	t.Parallel()
	s := budgetStudy()
	s.Seeds = search.FirstSeeds(2)
	s = normal(t, s)
	trials := s.Trials(space.Shape{C: 3, H: 32, W: 32}, 100)
	if len(trials) != 9*2 {
		t.Fatalf("%d trials, want 9 pairs × 2 seeds", len(trials))
	}
	seen := map[space.System]int{}
	for i, tr := range trials {
		seen[tr.System]++
		if tr.Status != search.Pending || tr.Epochs != 400 || tr.Epoch != 0 {
			t.Errorf("trial %+v is not fresh", tr)
		}
		if i%9 > 0 && tr.MultiplyAdds > trials[i-1].MultiplyAdds {
			t.Errorf("trial %d is longer than the one before", i)
		}
		if tr.Seed != i/9 {
			t.Errorf("trial %d is %v seed %d, want all pairs of a seed before the next", i, tr.System, tr.Seed)
		}
	}
	// L12M6 has the largest block of the budget except L1M23, which is narrow:
	// 32²·(27·72 + 6·4752) + 7200 = 31,194,144.
	if trials[0].System != space.PairSystem(space.Pair{L: 12, M: 6}) || trials[0].MultiplyAdds != 31_194_144 {
		t.Errorf("the longest is %v with %d multiply-adds", trials[0].System, trials[0].MultiplyAdds)
	}
	for p, n := range seen {
		if n != 2 {
			t.Errorf("%v has %d trials", p, n)
		}
	}
}
