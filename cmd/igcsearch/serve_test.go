package main

import (
	"bytes"
	"database/sql"
	"encoding/csv"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"igcsearch/cmd/igcsearch/live"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// sweep is a study that a test trains step by step, as a runner would.
type sweep struct {
	t      *testing.T
	path   string
	study  search.Study
	trials []search.Trial
	opened map[int]search.Claim // attempts, by place in trials
	db     *store.DB            // its trials run while it is open
}

const sweepEpochs = 3

// newSweep stores a study of two pairs and two seeds, with nothing done.
func newSweep(t *testing.T, path, title string) *sweep {
	t.Helper()
	s := search.Default()
	s.Name, s.Title, s.Dataset = "sweep", title, "synthetic"
	s.Pairs, s.Seeds, s.Epochs = []string{"40x2", "12x6"}, search.FirstSeeds(2), sweepEpochs
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	w := &sweep{t: t, path: path, study: s, opened: map[int]search.Claim{}}
	w.again()
	return w
}

// again plans the study, as each run does at its start.
func (w *sweep) again() {
	w.t.Helper()
	w.do(func(db *store.DB) (err error) {
		w.trials, err = db.Plan(w.t.Context(), w.study, w.study.Trials(space.Shape{C: 3, H: 32, W: 32}, 10))
		return err
	})
}

func (w *sweep) do(f func(*store.DB) error) {
	w.t.Helper()
	var err error
	if w.db == nil {
		if w.db, err = store.Open(w.t.Context(), w.path); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { w.db.Close() })
	}
	if err := f(w.db); err != nil {
		w.t.Fatal(err)
	}
}

func (w *sweep) begin(i int) {
	w.t.Helper()
	host, _ := os.Hostname()
	w.do(func(db *store.DB) (err error) {
		turn, err := db.Begin(w.t.Context(), w.trials[i].ID, sweepEpochs, search.Attempt{
			Started: time.Now().Add(-time.Minute), Host: host, PID: os.Getpid(),
			ISA: "cuda sm_90 (ptxas 11.8)", Device: "NVIDIA H200",
		})
		w.opened[i] = turn
		return err
	})
}

func (w *sweep) epoch(i, n int) {
	w.t.Helper()
	w.do(func(db *store.DB) error {
		e := search.Epoch{
			Number: n, LearningRate: 0.1, TrainLoss: 2.3 / float64(n), TrainCorrect: 300, TrainTotal: 640,
			TestCorrect: 101 + 97*n + 13*i, TestTotal: 700, TestLoss: 2.5 / float64(n),
			TrainSeconds: 1.6, EvalSeconds: 0.2,
		}
		if e.ValidationTotal = w.study.Validation; e.ValidationTotal > 0 {
			e.ValidationCorrect, e.ValidationLoss = 20, 2
		}
		return w.opened[i].Record(w.t.Context(), e, search.Checkpoint{Epoch: n, State: []byte{byte(n)}})
	})
}

func (w *sweep) end(i int, s search.Status, message string) {
	w.t.Helper()
	w.do(func(db *store.DB) error {
		o := search.Outcome{Status: s, Message: message}
		switch s {
		case search.Diverged:
			o.Failure = search.FailedDiverged
		case search.Failed:
			o.Failure = search.FailedCrashed
		case search.Pending:
			o.Failure = search.FailedInterrupted
		}
		_, err := w.opened[i].End(w.t.Context(), o)
		return err
	})
}

// train trains a trial to the end.
func (w *sweep) train(i int) {
	w.t.Helper()
	w.begin(i)
	for n := 1; n <= sweepEpochs; n++ {
		w.epoch(i, n)
	}
	w.end(i, search.Done, "")
}

// command runs a command line and returns what it prints.
func command(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args, &stdout, &stderr); code != exitOK {
		t.Fatalf("%v: exit code %d: %s", args, code, stderr.String())
	}
	return stdout.String()
}

// exportedCells returns the trials of export as the page's table shows them, such as
// "40x2: 55.71 12.86".
func exportedCells(t *testing.T, db string) []string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(command(t, "export", "sweep", "--db", db))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, row := range rows[1:] {
		v := map[string]string{}
		for i, name := range rows[0] {
			v[name] = row[i]
		}
		cell := v["status"]
		switch cell {
		case "done":
			correct, _ := strconv.Atoi(v["test_correct"])
			total, _ := strconv.Atoi(v["test_total"])
			cell = report.Percent(correct, total)
		case "running":
			cell = v["epoch"] + "/" + v["epochs"]
		case "pending":
			cell = "·"
		}
		if pair := v["L"] + "x" + v["M"] + ":"; len(list) == 0 || !strings.HasPrefix(list[len(list)-1], pair) {
			list = append(list, pair)
		}
		list[len(list)-1] += " " + cell
	}
	return list
}

var (
	networkRow = regexp.MustCompile(`(?m)^(?:<tbody>)?<tr><td>(\d+)</td><td>(\d+)</td>` +
		`.*class="accuracy">([^<]*)<.*class="n">([^<]*)<.*$`)
	networkCell = regexp.MustCompile(`</span>([^<]+)</span>`)
)

// shownCells returns the same of a page, and the accuracies of its pairs.
func shownCells(page string) (cells, accuracies []string) {
	for _, row := range networkRow.FindAllStringSubmatch(page, -1) {
		line := row[1] + "x" + row[2] + ":"
		for _, c := range networkCell.FindAllStringSubmatch(row[0], -1) {
			line += " " + c[1]
		}
		cells = append(cells, line)
		accuracies = append(accuracies, row[3]+" | "+row[4])
	}
	return cells, accuracies
}

func site(t *testing.T, db string) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	live.New(&watched{path: db}).Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func fetch(t *testing.T, method, url string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

const pageTitle = `<b>bold</b> & "quoted"`

// servedPage is a page of a study that is partly done.
type servedPage struct {
	db     string
	server *httptest.Server
	page   string
	header http.Header
}

// TestServePage checks that the page shows, and lets download, what the commands
// print.
// TestServeSplit: the page shows another split of the studies that have it, and says which have not.
func TestServeSplit(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "x.db")
	newSweep(t, db, "without").train(0)
	w := newSweep(t, db, "with")
	w.study.Name, w.study.Validation = "held_out", 50
	w.again()
	w.train(0)
	mux := http.NewServeMux()
	live.New(&watched{path: db, split: search.SplitValidation}).Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for study, wants := range map[string][]string{
		"held_out": {"accuracy on the 50 validation pictures of the synthetic set", "40.00"},
		"sweep": {"accuracy on the 700 test pictures of the synthetic set",
			`<p class="warning">sweep holds out no validation pictures (validation = 0), so nothing was evaluated`},
	} {
		_, page := fetch(t, "GET", server.URL+"/studies/"+study)
		for _, want := range wants {
			if !strings.Contains(page, want) {
				t.Errorf("the page of %s lacks %q:\n%s", study, want, page)
			}
		}
	}
}

func TestServePage(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	db := filepath.Join(dir, "x.db")
	server := site(t, db)
	r, page := fetch(t, "GET", server.URL)
	if r.StatusCode != 200 || !strings.Contains(page, "Nothing has started yet") {
		t.Fatalf("before there is a database: %d: %s", r.StatusCode, page)
	}
	if _, err := os.Stat(db); err == nil {
		t.Error("to look at the page created the database")
	}

	const failure = "first line\nCUDA error 700\n</pre><script>alert(1)</script>"
	w := newSweep(t, db, pageTitle)
	w.train(0)
	w.train(1)
	w.begin(2)
	w.epoch(2, 1)
	w.begin(3)
	w.end(3, search.Failed, failure)
	server = site(t, db) // with an empty cache
	r, page = fetch(t, "GET", server.URL+"/studies/sweep")
	if r.StatusCode != 200 {
		t.Fatalf("status %d: %s", r.StatusCode, page)
	}

	p := &servedPage{db, server, page, r.Header}
	t.Run("numbers are those of export", p.testNumbers)
	t.Run("text is escaped", p.testEscape)
	t.Run("downloads are what the commands write", p.testDownloads)
	t.Run("only reading", p.testReadOnly)
	t.Run("no path leads outside", p.testPaths)
	t.Run("no script but ours", p.testScripts)
}

// exportedTable returns the table of export without its marks of the best network and of verdicts.
func exportedTable(t *testing.T, db string) string {
	return strings.NewReplacer("**", "", "†", "", "‡", "", "§", "").Replace(
		command(t, "export", "sweep", "--db", db, "--format", "markdown"))
}

// testNumbers compares the numbers with those of export.
func (p *servedPage) testNumbers(t *testing.T) {
	cells, accuracies := shownCells(p.page)
	if diff := cmp.Diff(exportedCells(t, p.db), cells); diff != "" {
		t.Errorf("export against page:\n%s", diff)
	}
	table := exportedTable(t, p.db)
	for _, a := range accuracies {
		if !strings.Contains(table, a) {
			t.Errorf("export has no %q:\n%s", a, table)
		}
	}
	// 640 pictures in 1.6 s; 7 epochs of 1.8 s are 12.6 s, 0.0035 h; half of the
	// trials and a third of one more.
	for _, want := range []string{
		"2 done, 1 failed, 1 running", "<dd>400</dd>", "<dt>training, beside other work</dt><dd>0.004 ",
		"GPU, NVIDIA H200",
		fmt.Sprintf("%d</td><td class=\"text\">NVIDIA H200", os.Getpid()), "CUDA error 700",
		// The trial that runs: the losses as recorded, 300 of 640 and 224 of 700.
		"test loss</th><th scope=\"col\">test %", "<td>2.3000</td><td>46.88</td><td>2.5000</td><td>32.00</td>",
	} {
		if !strings.Contains(p.page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// testEscape checks that a text of a study is no HTML.
func (p *servedPage) testEscape(t *testing.T) {
	for _, bad := range []string{"<b>bold", "<script>alert", "</pre><script"} {
		if strings.Contains(p.page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(html.UnescapeString(p.page), pageTitle) {
		t.Error("the page lacks the title")
	}
}

// testDownloads compares the downloads with what the commands write.
func (p *servedPage) testDownloads(t *testing.T) {
	for file, want := range map[string]string{
		"results.csv": command(t, "export", "sweep", "--db", p.db),
		"epochs.csv":  command(t, "export", "sweep", "--db", p.db, "--epochs"),
	} {
		r, got := fetch(t, "GET", p.server.URL+"/studies/sweep/"+file)
		if got != want || r.Header.Get("Content-Disposition") != `attachment; filename="sweep-`+file+`"` {
			t.Errorf("%s, %s:\n%s\nexport:\n%s", file, r.Header.Get("Content-Disposition"), got, want)
		}
	}
	for _, format := range []string{"pdf", "svg", "png"} {
		var stderr bytes.Buffer
		args := []string{"plot", "sweep", "--db", p.db, "-o", "figure." + format}
		if code := run(t.Context(), args, io.Discard, &stderr); code != exitOK {
			t.Fatal(stderr.String())
		}
		want, err := os.ReadFile("figure." + format)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := fetch(t, "GET", p.server.URL+"/studies/sweep/accuracy."+format); got != string(want) {
			t.Errorf("accuracy.%s is not what plot writes", format)
		}
	}
	_, copied := fetch(t, "GET", p.server.URL+"/database")
	if err := os.WriteFile("copy.db", []byte(copied), 0o666); err != nil {
		t.Fatal(err)
	}
	got := command(t, "export", "sweep", "--db", "copy.db", "--epochs")
	want := command(t, "export", "sweep", "--db", p.db, "--epochs")
	want = strings.Replace(want, ",running,", ",interrupted,", 1) // nobody works on a copy
	if got != want {
		t.Errorf("the copy has\n%s\nwant\n%s", got, want)
	}
}

// testReadOnly checks that no request changes anything.
func (p *servedPage) testReadOnly(t *testing.T) {
	for _, path := range []string{"/", "/studies/sweep", "/studies/sweep/results.csv", "/database", "/events"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			if r, _ := fetch(t, method, p.server.URL+path); r.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %s", method, path, r.Status)
			}
		}
		if r, body := fetch(t, "HEAD", p.server.URL+path); r.StatusCode != 200 || body != "" {
			t.Errorf("HEAD %s: %s", path, r.Status)
		}
	}
}

// testPaths checks that no address leads to a file outside the page.
func (p *servedPage) testPaths(t *testing.T) {
	if err := os.WriteFile("sweep.toml", []byte(`name = "sweep"`), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/studies/sweep.toml", "/studies/sweep.toml/results.csv", "/studies/sweep/x.db",
		"/studies/..%2fx.db", "/assets/..%2flive.go",
		"/studies/%2fetc%2fpasswd/results.csv", "/assets/page.html", "/nothing",
	} {
		if r, _ := fetch(t, "GET", p.server.URL+path); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
}

// testScripts checks that the page runs no script but ours.
func (p *servedPage) testScripts(t *testing.T) {
	policy := p.header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script[^>]*>[^<]`)
	if inline.MatchString(p.page) || strings.Contains(p.page, "//") {
		t.Error("the page has an inline style or script, or an address of another host")
	}
}

// TestServeSilent checks that the page shows no speed if its workers are silent.
func TestServeSilent(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "x.db")
	w := newSweep(t, db, "")
	w.begin(0)
	w.epoch(0, 1)
	const warning, speed = "nothing was heard of its workers since", "<dt>pictures/s"
	if _, page := fetch(t, "GET", site(t, db).URL); strings.Contains(page, warning) || !strings.Contains(page, speed) {
		t.Errorf("just after an epoch: %s", page)
	}
	pool, err := sql.Open("sqlite3", db)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(`UPDATE study SET created = created - 600000, updated = updated - 600000`); err != nil {
		t.Fatal(err)
	}
	if _, page := fetch(t, "GET", site(t, db).URL); !strings.Contains(page, warning) || strings.Contains(page, speed) {
		t.Errorf("ten minutes after an epoch of 1.8 s: %s", page)
	}
}

// TestServeWhileWriting reads and copies while a runner commits. No commit may fail,
// and each copy must be complete.
func TestServeWhileWriting(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "x.db")
	w := newSweep(t, db, "")
	server := site(t, db)
	copies := filepath.Join(t.TempDir(), "copy.db")
	done := make(chan bool)
	go func() {
		defer close(done)
		for i := range 5 {
			_, copied := fetch(t, "GET", server.URL+"/database")
			name := fmt.Sprint(copies, i)
			if err := os.WriteFile(name, []byte(copied), 0o666); err != nil {
				t.Error(err)
				return
			}
			if c, err := store.OpenReadOnly(t.Context(), name); err != nil {
				t.Errorf("copy %d: %v", i, err)
			} else {
				c.Close()
			}
		}
	}()
	for i := range w.trials {
		w.train(i)
	}
	<-done
}

// TestServeCommand checks that serve prints its address, serves, and ends as other
// commands do.
func TestServeCommand(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("igcsearch", "serve")
	cmd.Dir = t.TempDir()
	var stdout lockedBuffer
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	c := start(t, cmd)
	until(t, "the address", c.alive, func() bool { return strings.HasSuffix(stdout.String(), "\n") })
	address := strings.TrimSpace(stdout.String())
	if !strings.HasPrefix(address, "http://127.0.0.1:") {
		t.Fatalf("it prints %q", address)
	}
	events, err := http.Get(address + "events") // an open stream does not delay the end
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	c.Process.Signal(syscall.SIGINT)
	if code := c.wait(); code != exitInterrupted || stderr.String() != "igcsearch: interrupted\n" {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
}

func TestServeListen(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		listen string
		code   int
		want   string
	}{{"8080", exitUsage, "want HOST:PORT"}, {taken.Addr().String(), exitFailure, "give another --listen"}} {
		var stderr bytes.Buffer
		code := run(t.Context(), []string{"serve", "--listen", c.listen}, io.Discard, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("--listen %s: exit code %d: %s", c.listen, code, stderr.String())
		}
	}
}
