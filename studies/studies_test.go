package studies_test

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/studies"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestShipped(t *testing.T) {
	t.Parallel()
	want := []string{"families", "families-cifar100", "fig3a", "fig3a-short", "fig3b", "fig3b-short", "igcv2-t4672",
		"precision-cifar100", "quickstart", "quickstart-synthetic", "quickstart-tuned"}
	for _, name := range []string{"table4-cifar10", "table4-cifar100", "table5-cifar10", "table5-cifar100",
		"table6-imagenet", "table7-cifar10", "table7-cifar100", "table7-svhn"} {
		want = append(want, name, name+"-short")
	}
	slices.Sort(want)
	if !slices.Equal(studies.Names(), want) {
		t.Errorf("Names() = %v, want %v", studies.Names(), want)
	}
	for _, name := range studies.Names() {
		t.Run(name+" loads under its own name and says what it is", func(t *testing.T) {
			s, err := studies.Load(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if s.Name != name || s.Title == "" {
				t.Errorf("name %q, title %q", s.Name, s.Title)
			}
			text, err := studies.Source(name)
			if err != nil {
				t.Fatal(err)
			}
			copied, err := studies.Parse("copy.toml", text, nil)
			if err != nil || !reflect.DeepEqual(copied, s) {
				t.Errorf("the source read as a file: %+v, %v", copied, err)
			}
		})
	}

	// L = 1 2 3 5 6 12 28 40 64 over M (paper, Table 1, i).
	table1i := []space.Pair{{L: 64, M: 1}, {L: 40, M: 2}, {L: 28, M: 3}, {L: 12, M: 6}, {L: 6, M: 9}, {L: 5, M: 10},
		{L: 3, M: 13}, {L: 2, M: 16}, {L: 1, M: 23}}
	// L = 1 2 4 12 14 23 28 41 64 85 128 over M (paper, Table 1, ii).
	table1ii := []space.Pair{{L: 128, M: 1}, {L: 85, M: 2}, {L: 64, M: 3}, {L: 41, M: 5}, {L: 28, M: 7}, {L: 23, M: 8},
		{L: 14, M: 11}, {L: 12, M: 12}, {L: 4, M: 22}, {L: 2, M: 31}, {L: 1, M: 44}}
	for name, want := range map[string][]space.Pair{
		"quickstart":           {{L: 18, M: 1}, {L: 9, M: 2}, {L: 5, M: 3}, {L: 3, M: 4}, {L: 2, M: 5}, {L: 1, M: 7}},
		"quickstart-synthetic": table1i, "fig3a": table1i, "fig3a-short": table1i, "fig3b": table1ii,
		"fig3b-short": table1ii,
	} {
		s, err := studies.Load(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.PairList(); !slices.Equal(got, want) {
			t.Errorf("%s has the pairs %v, want %v", name, got, want)
		}
	}
}

// TestShippedProtocol holds the studies of tables and figures to the paper, and the short ones to the recipe of short
// trainings.
func TestShippedProtocol(t *testing.T) {
	t.Parallel()
	t.Run("the studies of tables have the paper's protocol, and the short ones the same networks", func(t *testing.T) {
		for _, name := range studies.Names() {
			if !strings.HasPrefix(name, "table") || strings.HasSuffix(name, "-short") {
				continue
			}
			s, err := studies.Load(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			// Section 5.2. SVHN: 40 epochs, drops after 20, 30, 35; ImageNet: 95,
			// after 30, 60, 90, batch 256.
			epochs, batch, augment, drops := 400, 64, "crop-mirror", []float64{0.5, 0.75, 0.875}
			switch s.Dataset {
			case "svhn":
				epochs, augment = 40, "none"
			case "folder":
				epochs, batch, augment, drops = 95, 256, "scale-crop-mirror", []float64{30. / 95, 60. / 95, 90. / 95}
			}
			if s.Epochs != epochs || s.Batch != batch || s.Augment != augment || !slices.Equal(s.Drops, drops) ||
				len(s.Seeds) != 5 || s.LearningRate != 0.1 || s.Momentum != 0.9 || s.WeightDecay != 1e-4 ||
				s.TrainPictures != 0 ||
				s.TestPictures != 0 {
				t.Errorf("%s is %+v", name, s)
			}
			short, err := studies.Load(name+"-short", nil)
			if err != nil {
				t.Fatal(err)
			}
			if short.Epochs >= s.Epochs || len(short.Seeds) > len(s.Seeds) {
				t.Errorf("%s-short has %d epochs, %d seeds", name, short.Epochs, short.Seeds)
			}
			wantRecipe(t, short)
			short.Name, short.Title, short.Epochs, short.Seeds = s.Name, s.Title, s.Epochs, s.Seeds
			short.Schedule, short.Drops, short.Warmup, short.BNStatistics, short.BNPictures, short.WeightAverage = "",
				s.Drops, 0, "", 0, 0
			if diff := search.Diff(short, s); len(diff) > 0 {
				t.Errorf("%s-short differs in more than its length: %v", name, diff)
			}
		}
	})
	t.Run("the short ones of Figure 3 have the recipe of short trainings, and a validation split", func(t *testing.T) {
		for _, name := range []string{"fig3a", "fig3b"} {
			long, err := studies.Load(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			short, err := studies.Load(name+"-short", nil)
			if err != nil {
				t.Fatal(err)
			}
			wantRecipe(t, short)
			if !slices.Equal(short.Pairs, long.Pairs) || short.Dataset != long.Dataset || short.Epochs >= long.Epochs ||
				short.Validation != 5000 {
				t.Errorf("%s-short is %+v", name, short)
			}
		}
	})
	t.Run("igcv2-t4672 has the recipe of fig3a-short in fewer steps, and networks of its budget", func(t *testing.T) {
		pairs, err := studies.Load("fig3a-short", nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := studies.Load("igcv2-t4672", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, system := range s.SystemList() {
			if n := system.BlockParams(); math.Abs(float64(n)/4672-1) > 0.024 {
				t.Errorf("%s has %d parameters", system, n)
			}
		}
		pairs.Name, pairs.Title, pairs.Design = s.Name, s.Title, s.Design
		pairs.TrainPictures, pairs.Epochs, pairs.EvaluateEvery = s.TrainPictures, s.Epochs, s.EvaluateEvery
		if diff := search.Diff(pairs, s); len(diff) > 0 {
			t.Errorf("it differs from fig3a-short in %v", diff)
		}
	})
	t.Run("fig3a and fig3b are the paper's protocol", func(t *testing.T) {
		for _, name := range []string{"fig3a", "fig3b"} {
			s, err := studies.Load(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			// Section 5.2: 400 epochs, batch 64, 0.1 divided by 10 after 200,
			// 300, 350; Nesterov 0.9, decay 1e-4; Section 5.1: pad 4, crop,
			// mirror; Figure 3: five runs, six blocks, CIFAR-100.
			if s.Dataset != "cifar100" || s.TrainPictures != 0 || s.TestPictures != 0 || s.Validation != 0 ||
				s.Split != "test" || s.Augment != "crop-mirror" || s.Pad != 4 || s.Blocks != 6 || len(s.Seeds) != 5 ||
				s.Epochs != 400 ||
				s.Batch != 64 || s.LearningRate != 0.1 || !slices.Equal(s.Drops,
				[]float64{200. / 400, 300. / 400, 350. / 400}) ||
				s.Momentum != 0.9 || s.WeightDecay != 1e-4 || s.WeightDecayOn != "all" || s.Schedule != "" ||
				s.Warmup != 0 || s.BNStatistics != "" || s.WeightAverage != 0 {
				t.Errorf("%s is %+v", name, s)
			}
		}
	})
}

// wantRecipe checks for the settings that docs/short-trainings.md recommends.
func wantRecipe(t *testing.T, s search.Study) {
	t.Helper()
	if s.Schedule != search.ScheduleLinear || s.Warmup != 0.1 || s.BNStatistics != search.BNPrecise ||
		s.BNPictures != 2048 || s.WeightAverage != 0 {
		t.Errorf("%s: schedule %q, warmup %g, statistics %q of %d pictures, average %g", s.Name, s.Schedule, s.Warmup,
			s.BNStatistics, s.BNPictures, s.WeightAverage)
	}
}

// mine is a study file of a user.
const mine = "name = 'mine'\ndataset = 'cifar10'\npairs = ['40x2', '64x1']\nseeds = 2\ndrops = [0.5]\n"

func TestLoad(t *testing.T) {
	t.Parallel()
	file, text := filepath.Join(t.TempDir(), "mine.toml"), mine
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}

	t.Run("a file says what differs from the default", func(t *testing.T) {
		got, err := studies.Load(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := search.Default()
		want.Name, want.Dataset, want.Pairs = "mine", "cifar10", []string{"64x1", "40x2"}
		want.Seeds, want.Drops = search.FirstSeeds(2), []float64{0.5}
		want.Tolerance = 0                  // of a budget only
		want.BNPictures = 0                 // of precise statistics only
		want.Selection = search.Selection{} // those of other strategies
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})

	t.Run("tolerance and all go with a budget that replaces listed pairs", func(t *testing.T) {
		got, err := studies.Load(file, []string{"tolerance=0.01", "all=true", "budget=4672"})
		if err != nil || got.Budget != 4672 || got.Tolerance != 0.01 || !got.All {
			t.Fatalf("got %+v, %v", got, err)
		}
		if want := (space.Budget{Params: 4672, Kernel: 9, Tolerance: 0.01}).All(); !slices.Equal(got.PairList(), want) {
			t.Errorf("pairs %v, want %v", got.PairList(), want)
		}
	})

	t.Run("seeds are their number or a list, and a tolerance a fraction or a percentage", func(t *testing.T) {
		for _, c := range []struct {
			lines     string
			seeds     search.Seeds
			tolerance search.Tolerance
		}{
			{"seeds = 3\ntolerance = '5%'", search.Seeds{0, 1, 2}, 0.05},
			{"seeds = [2, 0, 1]\ntolerance = \" 2.5 % \"", search.Seeds{0, 1, 2}, 0.025},
			{"seeds = [ # new ones\n\t1_000,\n\t7, # [the last]\n]\ntolerance = 1e-1", search.Seeds{7, 1000}, 0.1},
			{"seeds = 0", nil, 0},
			{"tolerance = 0.5", search.FirstSeeds(5), 0.5},
		} {
			text := "name = 'a'\ndataset = 'cifar10'\nbudget = 4672\n" + c.lines
			got, err := studies.Parse("a.toml", []byte(text), nil)
			if c.seeds == nil {
				if want := "a.toml:4: seeds 0: want 1 to 10000"; err == nil || err.Error() != want {
					t.Errorf("%s: got %v, want %s", c.lines, err, want)
				}
				continue
			}
			if err != nil || !slices.Equal(got.Seeds, c.seeds) || got.Tolerance != c.tolerance {
				t.Errorf("%s: got %v and %v, %v", c.lines, got.Seeds, got.Tolerance, err)
			}
		}
	})

	t.Run("a byte order mark and Windows line ends are no part of the text", func(t *testing.T) {
		want, err := studies.Load(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := studies.Parse(file, []byte("\ufeff"+strings.ReplaceAll(text, "\n", "\r\n")), nil)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	})

	t.Run("the last --set of a key counts", func(t *testing.T) {
		got, err := studies.Load(file, []string{"epochs=7", "epochs=8"})
		if err != nil || got.Epochs != 8 {
			t.Errorf("got %d epochs, %v", got.Epochs, err)
		}
	})
}

// TestSet: an override changes one key.
func TestSet(t *testing.T) {
	t.Parallel()
	base, err := studies.Parse("a.toml", []byte(mine), nil)
	if err != nil {
		t.Fatal(err)
	}
	for set, change := range map[string]func(*search.Study){
		"epochs=7":                 func(s *search.Study) { s.Epochs = 7 },
		" epochs = 7 ":             func(s *search.Study) { s.Epochs = 7 },
		"learning_rate=1":          func(s *search.Study) { s.LearningRate = 1 },
		"weight_decay=5e-4":        func(s *search.Study) { s.WeightDecay = 5e-4 },
		"augment=none":             func(s *search.Study) { s.Augment = "none" },
		`augment="none"`:           func(s *search.Study) { s.Augment = "none" },
		"title=7":                  func(s *search.Study) { s.Title = "7" },
		`title=a "b" = c`:          func(s *search.Study) { s.Title = `a "b" = c` },
		"drops=[0.25, 0.75]":       func(s *search.Study) { s.Drops = []float64{0.25, 0.75} },
		"drops=[]":                 func(s *search.Study) { s.Drops = nil },
		`pairs=["1x23"]`:           func(s *search.Study) { s.Pairs = []string{"1x23"} },
		`pairs=1x23`:               func(s *search.Study) { s.Pairs = []string{"1x23"} },
		`pairs=1x23, 40x2`:         func(s *search.Study) { s.Pairs = []string{"40x2", "1x23"} },
		"drops=0.25,0.75":          func(s *search.Study) { s.Drops = []float64{0.25, 0.75} },
		"drops=0.25":               func(s *search.Study) { s.Drops = []float64{0.25} },
		"seeds=3":                  func(s *search.Study) { s.Seeds = search.Seeds{0, 1, 2} },
		"seeds=7,5,6":              func(s *search.Study) { s.Seeds = search.Seeds{5, 6, 7} },
		"seeds=[7, 5]":             func(s *search.Study) { s.Seeds = search.Seeds{5, 7} },
		"workers=3":                func(s *search.Study) { s.Workers = 3 },
		"budget=17536":             func(s *search.Study) { s.Budget, s.Tolerance, s.Pairs = 17536, 0.024, nil },
		"title=x\nepochs=5":        func(s *search.Study) { s.Title = "x\nepochs=5" },
		"title='x'\nepochs=5 # no": func(s *search.Study) { s.Title = "'x'\nepochs=5 # no" },
	} {
		got, err := studies.Parse("a.toml", []byte(mine), []string{set})
		if err != nil {
			t.Errorf("--set %q: %v", set, err)
			continue
		}
		want := base
		change(&want)
		if want, err = want.Normalize(); err != nil {
			t.Fatal(err)
		}
		if len(got.Drops)+len(want.Drops) == 0 {
			got.Drops, want.Drops = nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("--set %q gives %+v, want %+v", set, got, want)
		}
	}
}

// TestChange: a stored study is overridden as its file is.
func TestChange(t *testing.T) {
	t.Parallel()
	const chosen = "name = 'a'\ndataset = 'cifar10'\nbudget = 4672\n"
	const staged = "name = 'a'\ndataset = 'cifar10'\nlayout = 'stages'\nstage_params = 500_000\ndepths = [20]\n" +
		"stage_top = 2\n"
	const families = "name = 'a'\ndataset = 'cifar10'\nbudget = 4672\nfamilies = ['IGCV2', 'RegNetX']\nper_family = 2\n"
	for _, c := range []struct {
		text string
		set  []string
	}{
		{families, []string{"per_family=3"}}, {families, []string{"families=IGCV3"}}, {families, []string{"budget=17536"}},
		{families, []string{"tolerance=5%"}}, {families, []string{"pairs=40x2"}}, {families, []string{"systems=SumFusion"}},
		{chosen, []string{"families=IGC,IGCV2"}}, {mine, []string{"families=IGC,IGCV2", "budget=4672"}},
		{staged, []string{"kernel=1"}}, {chosen + "kernel = 1\n", []string{"systems=IGC-L40M2"}},
		{chosen, []string{"kernel=1"}}, {chosen + "kernel = 1\n", []string{"kernel=9"}},
		{chosen + "kernel = 1\n", []string{"variant=5x5"}}, {chosen + "variant = '1x1'\n", []string{"budget=1024"}},
		{chosen, []string{"seeds=9"}}, {chosen, []string{"tolerance=1%", "all=true"}},
		{chosen, []string{"pairs=40x2,1x23"}},
		{chosen, []string{"budget=17536"}}, {chosen, []string{"variant=Proj"}}, {chosen, []string{"systems=IGC-L40M2"}},
		{mine, []string{"seeds=5,6", "race.min_seeds=2", "strategy=race"}},
		{mine, []string{"budget=4672", "tolerance=1%"}},
		{mine, []string{"budget=4672"}}, {mine, []string{"bn_statistics=precise"}}, {staged, []string{"stage_top=3"}},
		{chosen + "schedule = 'cosine'", []string{"schedule=step"}}, {mine + "depths = [8, 14]", []string{"depths=[]"}},
	} {
		want, err := studies.Parse("a.toml", []byte(c.text), c.set)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := studies.Parse("a.toml", []byte(c.text), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := studies.Change(stored, c.set); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s--set %q: got %+v, %v, want %+v", c.text, c.set, got, err, want)
		}
	}
	stored, err := studies.Parse("a.toml", []byte(mine), nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = "all: it has no effect, because study mine lists its pairs: set budget too, which drops the list"
	_, err = studies.Change(stored, []string{"all=true"})
	if !errors.As(err, new(*studies.SetError)) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestStrategyTable: a strategy has a table of settings.
func TestStrategyTable(t *testing.T) {
	t.Parallel()
	want, err := studies.Parse("a.toml", []byte(mine), nil)
	if err != nil {
		t.Fatal(err)
	}
	want = want.WithStrategy("race")
	want.Race.Alpha, want.Race.MinSeeds = 0.1, 2
	for _, c := range []struct {
		text string
		set  []string
	}{
		{"strategy = 'race'\n[race]\nalpha = 0.1\nmin_seeds = 2\n", nil},
		{"strategy = 'race'\nrace = {alpha = 0.1, min_seeds = 2}\n", nil},
		{"strategy = 'race'\nrace.alpha = 0.1\n", []string{"race.min_seeds=2"}},
		{"", []string{"race.min_seeds=2", "strategy=race", "race.alpha=0.1"}},
	} {
		got, err := studies.Parse("a.toml", []byte(mine+c.text), c.set)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q and %q: got %+v, %v, want %+v", c.text, c.set, got, err, want)
		}
	}
	for bad, want := range map[string]string{
		"[race]\nalpa = 1\n":      `unknown key "race.alpa": did you mean "race.alpha"?`,
		"[race]\nseeds = 3\n":     `a.toml:7: unknown key "race.seeds"`,
		"race = {alpa = 1}\n":     `a.toml:6: unknown key "race.alpa"`,
		"race.alpa = 1\n":         `unknown key "race.alpa"`,
		"[racing]\nalpha = 1\n":   `unknown key "racing"`,
		"[race.alpha]\nx = 1\n":   `a.toml:7: unknown key "race.alpha.x"`,
		"[race]\nalpha = 'x'\n":   `a.toml:7: race.alpha: want a number`,
		"race = 3\n":              `race: want a table`,
		"[[race]]\nalpha = 0.1\n": `race: want a table`,
		"strategy = 'race'\n[race]\nmin_seeds = 2\nalpha = 2\n": `a.toml:9: race.alpha 2: want`,
	} {
		_, err := studies.Parse("a.toml", []byte(mine+bad), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", bad, err, want)
		}
	}
	for bad, want := range map[string]string{
		"race.alpha=0.1":                   "no effect with strategy grid: set strategy=race too",
		"race.alpha=0.1\nrace.min_seeds=2": "want a number",
		"race.alpa=0.1":                    `did you mean "race.alpha"?`,
		"race=1":                           "unknown key",
	} {
		_, err := studies.Parse("a.toml", []byte(mine), []string{bad})
		if !errors.As(err, new(*studies.SetError)) || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %q: got %v, want %s", bad, err, want)
		}
	}
}

// TestErrors holds every message of testdata/errors.golden to what people see.
func TestErrors(t *testing.T) {
	t.Parallel()
	const head = "name = 'mine'\ndataset = 'cifar10'\nbudget = 4672\n"
	var out strings.Builder
	say := func(what string, err error) {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		fmt.Fprintf(&out, "%s\n\t%s\n", what, strings.ReplaceAll(fmt.Sprint(err), "\n", "\n\t"))
	}
	for _, c := range []struct{ what, text string }{
		{"unknown key", head + "epoch = 3\n"},
		{"unknown key far from all", head + "\n# a comment\ncolour = 'blue'\n"},
		{"key in other letters", head + "Epochs = 3\n"},
		{"key twice in other letters", head + "epochs = 3\n\"EPOCHS\" = 7\n"},
		{"key in other letters, of another type", head + "Epochs = '3'\n"},
		{"table", head + "[timetable]\nepochs = 3\n"},
		{"table of a known key", head + "[epochs]\n"},
		{"dotted key", head + "epochs.first = 3\n"},
		{"unknown dotted key", head + "timetable.epochs = 3\n"},
		{"string for a number", head + "epochs = '3'\n"},
		{"fraction for a whole number", head + "epochs = 3.5\n"},
		{"number for a string", "name = 3\n"},
		{"number for a list", head + "pairs = 3\n"},
		{"numbers for strings", head + "pairs = [\n\t'40x2',\n\t41,\n]\n"},
		{"too large for an int", head + "epochs = 99999999999999999999\n"},
		{"syntax", head + "epochs = = 3\n"},
		{"no value", head + "epochs =\nseeds = 2\n"},
		{"no value, Windows", head + "epochs =\r\nseeds = 2\r\n"},
		{"no value at the end", head + "epochs ="},
		{"no =", head + "epochs\nseeds = 2\n"},
		{"no = below seeds and tolerance", head + "tolerance = '5%'\nseeds = 2\nepochs\n"},
		{"open string", head + "title = 'x\n"},
		{"key twice", head + "epochs = 3\nepochs = 4\n"},
		{"not text", "name = '\xff'\n"},
		{"out of range", head + "\nepochs = 0\n"},
		{"out of range below text that looks the same", head + "title = '''\nepochs = 1\n'''\nepochs = 0\n"},
		{"several out of range", "name = 'a b'\ndataset = 'cifar'\nmomentum = 1\n"},
		{"infinite", head + "learning_rate = inf\nweight_decay = nan\n"},
		{"bad pair", "name = 'mine'\ndataset = 'cifar10'\npairs = ['40']\n"},
		{"string without a percent sign", head + "\ntolerance = '0.05'\n"},
		{"no seeds", head + "\nseeds = []\n"},
		{"string for seeds", head + "seeds = [\n\t5,\n\t'6',\n]\n"},
		{"too many seeds", head + "seeds = 2_000_000_000\n"},
		{"seed twice", head + "seeds = [5, 5]\n"},
		{"name of other programs", head + "batch_size = 64\n"},
		{"optimiser", head + "\noptimizer = 'adam'\n"},
		{"unreadable number", head + "\nlearning_rate = 0,1\n"},
		{"word for a number", head + "\nlearning_rate = fast\n"},
		{"word for truth", head + "\nall = yes\n"},
		{"pair in a long list",
			"name = 'mine'\ndataset = 'cifar10'\npairs = [\n\t'40x2',\n\t'41y',\n]\n"},
		{"unknown network", "name = 'mine'\ndataset = 'cifar10'\n\nsystems = ['IGC-L24']\n"},
		{"unknown variant", head + "\nvariant = 'Big'\n"},
		{"strategy of several settings", head + "\nstrategy = 'race'\nseeds = 1\n"},
		{"empty", ""},
	} {
		_, err := studies.Parse("mine.toml", []byte(c.text), nil)
		say(c.what, err)
	}
	for _, set := range []string{"epochs", "=3", "epoch=3", "Epochs=3", "epochs=many", "epochs=3.5", "epochs=0",
		"lr=0.1", "pairs=40", "pairs=40x2,41y",
		"drops=half", "seeds=0.5", "seeds=5,5", "seeds=-3", "seeds=10001", "tolerance=5 percent",
		"all=1", "a.b=1", "epochs=", "epochs=3\nseeds=9"} {
		_, err := studies.Parse("mine.toml", []byte(head), []string{set})
		say("--set "+set, err)
	}
	const listed = "name = 'mine'\ndataset = 'cifar10'\npairs = ['40x2']\n"
	for _, set := range [][]string{{"all=true"}, {"tolerance=0.1"}, {`pairs=["1x1"]`, "budget=100"},
		{"tolerance=0.1", `pairs=["1x1"]`}} {
		_, err := studies.Parse("mine.toml", []byte(listed), set)
		say("listed pairs --set "+strings.Join(set, " --set "), err)
		if !errors.As(err, new(*studies.SetError)) {
			t.Errorf("--set %q: %v is not a SetError", set, err)
		}
	}
	for _, name := range []string{"quikstart", "folder/quickstart.toml", "fig3", "nothing-like-it", "mine.tom",
		"testdata"} {
		_, err := studies.Load(name, nil)
		say("load "+name, err)
	}
	_, err := studies.Source("quick")
	say("source quick", err)

	golden := filepath.Join("testdata", "errors.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("errors differ from %s (-update rewrites it):\n%s", golden, out.String())
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range studies.Names() {
		text, err := studies.Source(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), "epochs=3")
	}
	f.Add("name = 'x'\ndataset = 'synthetic'\nbudget = 100\nlearning_rate = inf", "drops=[0.5]")
	f.Add("\ufeffName = 'x'\n'dataset'.x = ''\n[[pairs]]\n", "tolerance=0")
	f.Add("pairs = ['1x1']", "title=a\nb=c")
	f.Fuzz(func(t *testing.T, text, set string) {
		if len(text) > 4096 {
			t.Skip("long inputs only make the search slow")
		}
		s, err := studies.Parse("fuzz.toml", []byte(text), []string{set})
		if err != nil {
			return
		}
		// What Parse lets through is normal, and has a fingerprint and trials.
		again, err := s.Normalize()
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("normalising %+v again gives %+v, %v", s, again, err)
		}
		if len(s.Fingerprint()) != 64 || len(s.SystemList()) == 0 {
			t.Fatalf("fingerprint %q, networks %v", s.Fingerprint(), s.SystemList())
		}
	})
}
