package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/trainer/kernel"
)

var update = flag.Bool("update", false, "rewrite the golden outputs in testdata")

// TestMain makes this test binary the command igcsearch for the scripts. It
// hides GPUs: what the tests expect is the same on every machine.
func TestMain(m *testing.M) {
	os.Setenv("CUDA_VISIBLE_DEVICES", "")
	testscript.Main(m, map[string]func(){"igcsearch": main})
}

// TestScripts runs testdata/*.txtar, each in an empty folder.
func TestScripts(t *testing.T) {
	t.Parallel()
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "this is no archive")
	}))
	t.Cleanup(mirror.Close)
	program, err := exec.LookPath("igcsearch") // see TestMain
	if err != nil {
		t.Fatal(err)
	}
	results, err := filepath.Abs("../../studies/results")
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, "testdata", "MIRROR="+mirror.URL, "PROGRAM="+program, "NAMED=two\x1b[2J.toml", "RESULTS="+results)
}

// runScripts runs the scripts of a folder with some more variables.
func runScripts(t *testing.T, dir string, vars ...string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, append(vars, "IGCSEARCH_DATA=", "GOCOVERDIR="+env.WorkDir)...)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exit":        scriptExit,
			"fixture":     scriptFixture,
			"recorded":    scriptRecorded,
			"edit":        scriptEdit,
			"pictures":    scriptPictures,
			"epochs":      scriptEpochs,
			"waitfile":    scriptWaitFile,
			"samebytes":   scriptSameBytes,
			"sql":         scriptSQL,
			"certificate": scriptCertificate,
		},
	})
}

// scriptExit is "exit CODE igcsearch ARGS…": it runs the command and checks
// its exit code.
func scriptExit(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND [ARGS…]")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d, want %s; stderr: %s", got, want, ts.ReadFile("stderr"))
	}
}

// scriptEpochs is "epochs DB STUDY N": it waits until the database has N
// epochs of the study, or with +N until it has N more than when it was asked.
// It fails when a command in the background ends before.
func scriptEpochs(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: epochs DB STUDY N")
	}
	want, err := strconv.Atoi(args[2])
	ts.Check(err)
	if strings.HasPrefix(args[2], "+") {
		db, err := store.OpenReadOnly(context.Background(), ts.MkAbs(args[0]))
		ts.Check(err)
		stored, err := db.Read(context.Background(), args[1])
		db.Close()
		ts.Check(err)
		want += epochsOf(stored)
	}
	waitEpochs(ts, inBackground(ts), ts.MkAbs(args[0]), args[1], want)
}

// inBackground returns a function that reports whether all commands in the background still run.
func inBackground(ts *testscript.TestScript) (alive func() bool) {
	commands := ts.BackgroundCmds()
	return func() bool {
		return len(commands) > 0 && !slices.ContainsFunc(commands, func(c *exec.Cmd) bool {
			return syscall.Kill(c.Process.Pid, 0) != nil
		})
	}
}

// scriptWaitFile is "waitfile FILE [TEXT]": it waits until the file is there, and contains the text. It fails when a
// command in the background ends before.
func scriptWaitFile(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: waitfile FILE [TEXT]")
	}
	text := strings.Join(args[1:], "")
	until(ts, fmt.Sprintf("a file %s with %q", args[0], text), inBackground(ts), func() bool {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && bytes.Contains(b, []byte(text))
	})
}

// scriptSameBytes is "samebytes A B", for files that are not text.
func scriptSameBytes(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: samebytes A B")
	}
	if same := ts.ReadFile(args[0]) == ts.ReadFile(args[1]); same == neg {
		ts.Fatalf("%s and %s: the same bytes: %v", args[0], args[1], same)
	}
}

// scriptSQL is "sql DB STATEMENT".
func scriptSQL(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: sql DB STATEMENT")
	}
	db, err := sql.Open("sqlite3", ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec(args[1])
	ts.Check(err)
}

// scriptFixture is "fixture DB": it stores the study "all_states" with trials in
// every state, whose numbers are the same on every machine.
func scriptFixture(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	s := search.Default()
	s.Name, s.Title, s.Dataset = "all_states", "one trial in every state", "synthetic"
	s.Pairs, s.Seeds, s.Epochs, s.Validation = []string{"64x1", "40x2", "28x3", "12x6"}, search.FirstSeeds(2), 2, 50
	s, err := s.Normalize()
	ts.Check(err)
	db, err := store.Open(ctx, ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { db.Close() }) // until then its trial runs
	gone, err := store.Open(ctx, ts.MkAbs(args[0]))
	ts.Check(err)
	defer gone.Close()
	trials, err := db.Plan(ctx, s, s.Trials(s.Shape()))
	ts.Check(err)
	host, err := os.Hostname()
	ts.Check(err)

	for _, t := range trials {
		by, status, failure, message, epochs := db, search.Done, search.Failure(""), "", 2
		switch fmt.Sprintf("%v/%d", t.System.Label(), t.Seed) {
		case "L40M2/1":
			status, failure, message, epochs = search.Diverged, search.FailedDiverged,
				"epoch 2, step 1: the loss is not finite", 1
		case "L28M3/0":
			status, failure, message, epochs = search.Failed, search.FailedCrashed, "a name_with 50 % & more", 0
		case "L28M3/1":
			continue // pending
		case "L12M6/0":
			status, epochs = search.Running, 1
		case "L12M6/1":
			by, status, epochs = gone, search.Running, 1
		}
		turn, err := by.Begin(ctx, t.ID, 2, search.Attempt{Started: time.Unix(1e9, 0), Host: host, PID: os.Getpid(),
			ISA: "portable"})
		ts.Check(err)
		for n := 1; n <= epochs; n++ {
			e := search.Epoch{
				Number: n, LearningRate: 0.1, TrainLoss: 2.25 / float64(n), TrainCorrect: 10 * n, TrainTotal: 64,
				ValidationCorrect: 8 * n, ValidationTotal: 50, TestCorrect: t.System.Pair().L/4 + 10*n + 2*t.Seed,
				TestTotal:      100,
				ValidationLoss: 2.0 / 3 / float64(n), TestLoss: 2.375 / float64(n), TrainSeconds: 1.5,
				EvalSeconds: 0.25,
			}
			ts.Check(turn.Record(ctx, e, search.Checkpoint{Epoch: n, State: []byte{byte(n)}}))
		}
		if status != search.Running {
			_, err := turn.End(ctx, search.Outcome{Status: status, Failure: failure, Message: message})
			ts.Check(err)
		}
	}
	// Scripts copy the one file, so all must be in it.
	pool, err := sql.Open("sqlite3", ts.MkAbs(args[0]))
	ts.Check(err)
	defer pool.Close()
	_, err = pool.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	ts.Check(err)
}

// scriptPictures is "pictures DIR N": it makes a data set of PNG files in DIR,
// N training and N test pictures in each of two classes.
func scriptPictures(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: pictures DIR N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for _, part := range []string{"train", "test"} {
		for class, name := range []string{"bright", "dark"} {
			place := filepath.Join(ts.MkAbs(args[0]), part, name)
			ts.Check(os.MkdirAll(place, 0o777))
			for i := range n {
				m := image.NewGray(image.Rect(0, 0, 12+i, 15))
				for at := range m.Pix {
					m.Pix[at] = uint8(180 - 130*class + (at*7+i*11)%60)
				}
				var b bytes.Buffer
				ts.Check(png.Encode(&b, m))
				ts.Check(os.WriteFile(filepath.Join(place, fmt.Sprintf("%d.png", i)), b.Bytes(), 0o666))
			}
		}
	}
}

// scriptCertificate is "certificate CERT KEY": it makes a certificate for
// 127.0.0.1 that signs itself, and its key.
func scriptCertificate(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: certificate CERT KEY")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	ts.Check(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(crand.Reader, about, about, key.Public(), key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o666))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// TestHelpExamples runs the examples of all help texts, in the order of the
// commands, on a study cut down to moments.
func TestHelpExamples(t *testing.T) {
	t.Chdir(t.TempDir())
	// Runs that train: cut down. What needs a download, or works until it is
	// interrupted, is only parsed.
	short := []string{"--set", "seeds=2", "--set", "epochs=1", "--set", "train_pictures=32", "--set",
		"test_pictures=20", "--set", "blocks=1"}
	onlyParsed := func(line string) bool {
		return strings.Contains(line, "igcsearch data") || strings.Contains(line, "igcsearch serve") ||
			strings.Contains(line, "worker --access") || strings.Contains(line, "fig3")
	}

	var commands []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		commands = append(commands, c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand())
	// Others need what run leaves behind.
	slices.SortStableFunc(commands, func(a, b *cobra.Command) int {
		order := func(c *cobra.Command) int { return slices.Index([]string{"worker", "run", "igcsearch"}, c.Name()) }
		return order(b) - order(a)
	})
	ran := 0
	for _, c := range commands {
		if c.Runnable() && c.Example == "" && c.Name() != "help" && c.Parent().Name() != "completion" {
			t.Errorf("%s: its help has no example", c.CommandPath())
		}
		if c.Parent() != nil && c.Parent().Name() == "completion" {
			continue // cobra's own
		}
		for line := range strings.Lines(c.Example) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			t.Run(line, func(t *testing.T) {
				command, file, redirected := strings.Cut(line, " > ")
				words := strings.Fields(command)
				if words[0] != "igcsearch" {
					t.Fatalf("the example does not start with igcsearch")
				}
				args := words[1:]
				if onlyParsed(line) {
					root := newRootCommand()
					cmd, rest, err := root.Find(args)
					if err == nil {
						err = cmd.ParseFlags(rest)
					}
					if err == nil {
						err = cmd.ValidateArgs(cmd.Flags().Args())
					}
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				if args[0] == "run" || args[0] == "trace" || args[0] == "worker" {
					args = append(args, short...)
				}
				if args[0] == "bench" && !slices.Contains(args, "--scaling") {
					args = append(args, "--steps", "1", "--batch", "16")
				} else if args[0] == "bench" { // two threads need more than 16 pictures
					args = append(args, "--steps", "1", "--batch", "32")
				}
				var stdout, stderr bytes.Buffer
				if code := run(t.Context(), args, &stdout, &stderr); code != exitOK {
					t.Fatalf("exit code %d: %s", code, stderr.String())
				}
				if redirected {
					if err := os.WriteFile(file, stdout.Bytes(), 0o666); err != nil {
						t.Fatal(err)
					}
				}
				ran++
			})
		}
	}
	if ran < 15 {
		t.Errorf("only %d examples ran", ran)
	}
}

// tiny is a study that trains in a moment.
const tiny = `name = "tiny"
dataset = "synthetic"
train_pictures = 64
test_pictures = 50
pairs = ["3x2", "2x3"]
blocks = 1
seeds = 2
epochs = 12
batch = 16
`

// TestKill ends runs by SIGKILL at several moments and goes on; in the end the
// epochs have the bytes of an uninterrupted run with another number of
// workers. With bfloat16 each run has another instruction set.
func TestKill(t *testing.T) {
	t.Parallel()
	t.Run("float32", func(t *testing.T) { testKill(t, "f32", kernel.Available()[:1]) })
	t.Run("bfloat16", func(t *testing.T) { testKill(t, "bf16", kernel.Available()) })
	t.Run("bfloat16 by AMX", func(t *testing.T) { testKill(t, "bf16-amx", kernel.Available()) })
}

func testKill(t *testing.T, precision string, isas []kernel.ISA) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tiny.toml"), []byte(tiny), 0o666); err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command("igcsearch", args...) // see TestMain
		cmd.Dir = dir
		return cmd
	}
	run := func(isa int, args ...string) *exec.Cmd {
		cmd := command(append([]string{"run", "tiny.toml", "--no-figure", "--set", "precision=" + precision}, args...)...)
		cmd.Env = append(os.Environ(), "IGC_ISA="+isas[isa%len(isas)].String())
		return cmd
	}
	export := func(db string) string {
		t.Helper()
		out, err := command("export", "tiny", "--db", db, "--epochs").Output()
		if err != nil {
			t.Fatalf("export: %v", err)
		}
		return string(out)
	}

	if out, err := run(0, "--db", "straight.db", "--workers", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := export("straight.db")
	if n := strings.Count(want, "\n"); n != 1+4*12 {
		t.Fatalf("an uninterrupted run has %d lines of epochs:\n%s", n, want)
	}

	killed := filepath.Join(dir, "killed.db")
	kills := 0
	for i, epochs := range []int{1, 13, 26, 40} {
		c := start(t, run(i, "--db", "killed.db", "--workers", "2"))
		waitEpochs(t, c.alive, killed, "tiny", epochs)
		if c.kill() {
			kills++
		}
	}
	if kills < 2 {
		t.Fatalf("only %d of the runs were still running when they were to be killed", kills)
	}
	// What the last kill left behind can be read, and is told apart.
	status, err := command("status", "tiny", "--db", "killed.db").Output()
	if err != nil {
		t.Fatal(err)
	}
	if kills == 4 && !strings.Contains(string(status), "interrupted") {
		t.Errorf("status after a kill:\n%s", status)
	}
	if out, err := run(4, "--db", "killed.db").CombinedOutput(); err != nil {
		t.Fatalf("going on after kills: %v: %s", err, out)
	}
	if got := export("killed.db"); got != want {
		t.Errorf("epochs after %d kills:\n%s\nof an uninterrupted run:\n%s", kills, got, want)
	}
}

// TestTerminate: SIGTERM, which batch systems and service managers send, is
// like SIGINT.
func TestTerminate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tiny.toml"), []byte(tiny), 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("igcsearch", "run", "tiny.toml", "--set", "epochs=100000")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	c := start(t, cmd)
	waitEpochs(t, c.alive, filepath.Join(dir, "igcsearch.db"), "tiny", 2)
	c.Process.Signal(syscall.SIGTERM)
	if code := c.wait(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d; stderr: %s", code, exitInterrupted, stderr.String())
	}
	if want := "\n  igcsearch run tiny.toml --set epochs=100000\n"; !strings.Contains(stderr.String(), want) {
		t.Errorf("stderr lacks the command that goes on, %q: %s", want, stderr.String())
	}
}

// waitEpochs waits until a database has so many epochs of a study. It fails when the processes that train are not alive
// before.
func waitEpochs(t interface{ Fatalf(string, ...any) }, alive func() bool, path, study string, want int) {
	until(t, fmt.Sprintf("%d epochs of %s in %s", want, study, path), alive, func() bool {
		db, err := store.OpenReadOnly(context.Background(), path)
		if err != nil {
			return false // not created yet
		}
		defer db.Close()
		stored, _ := db.Read(context.Background(), study)
		return epochsOf(stored) >= want
	})
}

func epochsOf(stored store.Results) (n int) {
	for _, t := range stored.Trials {
		n += t.Epoch
	}
	return n
}

// TestStatusLine: the status line of a server that is no coordinator does not reach the terminal raw.
func TestStatusLine(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(c))
			fmt.Fprint(c, "HTTP/1.1 500 \x1b[31mall is well\u202e\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}
	}()
	access := filepath.Join(t.TempDir(), "a.access")
	text := fmt.Sprintf(`{"address":"http://%s","token":"0123456789abcdef"}`, l.Addr())
	if err := os.WriteFile(access, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"status", "x", "--db", access}, &stdout, &stderr)
	if said := stderr.String(); code != exitFailure || strings.ContainsAny(said, "\x1b\u202e") ||
		!strings.Contains(said, `answers 500 \u001b[31mall is well\u202e`) {
		t.Errorf("exit code %d: %q", code, said)
	}
}
