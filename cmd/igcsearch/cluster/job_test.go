package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// environment makes a getenv of pairs "KEY=value".
func environment(pairs ...string) func(string) string {
	return func(key string) string {
		for _, p := range pairs {
			if k, v, _ := strings.Cut(p, "="); k == key {
				return v
			}
		}
		return ""
	}
}

func TestJobName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want string
		env  []string
	}{
		{"", nil},
		{"", []string{"HOSTNAME=n1"}},
		{"slurm 123", []string{"SLURM_JOB_ID=123", "SLURM_PROCID=0"}},
		{"slurm 123_0", []string{
			"SLURM_JOB_ID=124", "SLURM_ARRAY_JOB_ID=123", "SLURM_ARRAY_TASK_ID=0", "SLURM_PROCID=0",
		}},
		{"slurm 123.0", []string{"SLURM_JOB_ID=123", "SLURM_NTASKS=2", "SLURM_PROCID=0"}},
		{"slurm 123_4.5 restart 2", []string{
			"SLURM_JOB_ID=129", "SLURM_ARRAY_JOB_ID=123", "SLURM_ARRAY_TASK_ID=4",
			"SLURM_NTASKS=8", "SLURM_PROCID=5", "SLURM_RESTART_COUNT=2",
		}},
		{"slurm 123", []string{"SLURM_JOB_ID=123", "SLURM_NTASKS=1", "SLURM_PROCID=0", "SLURM_RESTART_COUNT=0"}},
		{"slurm 7", []string{"SLURM_JOB_ID=7", "KUBERNETES_SERVICE_HOST=10.0.0.1", "HOSTNAME=pod"}},
		{"kubernetes fig3a-2-x7kqp", []string{"KUBERNETES_SERVICE_HOST=10.0.0.1", "HOSTNAME=fig3a-2-x7kqp"}},
	} {
		if got := JobName(environment(c.env...)); got != c.want {
			t.Errorf("JobName of %q is %q, want %q", c.env, got, c.want)
		}
	}
}

// fakeSqueue makes a program that writes its arguments to the file calls, a line
// for each call, and then runs the shell commands.
func fakeSqueue(t *testing.T, commands string) (program, calls string) {
	t.Helper()
	dir := t.TempDir()
	program, calls = filepath.Join(dir, "squeue"), filepath.Join(dir, "calls")
	writeProgram(t, program, "echo \"$@\" >>'"+calls+"'\n"+commands)
	return program, calls
}

// writeProgram makes a program of shell commands.
func writeProgram(t *testing.T, program, commands string) {
	t.Helper()
	// os.WriteFile would not do: a process that another test starts meanwhile
	// inherits the open file, and a file that is open for writing cannot be run.
	write := exec.Command("sh", "-c", `cat >"$0" && chmod +x "$0"`, program)
	write.Stdin = strings.NewReader("#!/bin/sh\n" + commands + "\n")
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func readCalls(t *testing.T, calls string) []string {
	t.Helper()
	text, err := os.ReadFile(calls)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// TestJobEnd reads what squeue 22.05 prints for %L, and the variable that later
// versions of Slurm set.
func TestJobEnd(t *testing.T) {
	program, calls := fakeSqueue(t, `case "$2" in
--jobs=1_0) echo 1-02:03:04 ;;
--jobs=2) echo 1:00 ;;
--jobs=3) echo UNLIMITED ;;
--jobs=4) echo NOT_SET ;;
--jobs=7) echo INVALID ;;
--jobs=8) echo "Maintenance at 10:00 on Monday"; echo; echo "  2:00  " ;;
--jobs=9) echo "soon" ;;
--jobs=5) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 ;;
esac`)
	t.Setenv("PATH", filepath.Dir(program)+":"+os.Getenv("PATH"))
	const wrong = -2
	for _, c := range []struct {
		env  []string
		want time.Duration // from now; -1: unknown; wrong: with an error
	}{
		{
			[]string{"SLURM_JOB_ID=9", "SLURM_ARRAY_JOB_ID=1", "SLURM_ARRAY_TASK_ID=0"},
			26*time.Hour + 3*time.Minute + 4*time.Second,
		},
		{[]string{"SLURM_JOB_ID=2"}, time.Minute},
		{[]string{"SLURM_JOB_ID=7"}, 0}, // it is over
		{[]string{"SLURM_JOB_ID=3"}, -1},
		{[]string{"SLURM_JOB_ID=4"}, -1},
		{[]string{"SLURM_JOB_ID=5"}, wrong},
		{[]string{"SLURM_JOB_ID=6"}, wrong}, // squeue prints nothing
		{[]string{"SLURM_JOB_ID=8"}, 2 * time.Minute},
		{[]string{"SLURM_JOB_ID=9"}, wrong},
	} {
		before := time.Now()
		end, ok, err := JobEnd(t.Context(), environment(c.env...))
		after := time.Now()
		if ok != (c.want >= 0) || (err != nil) != (c.want == wrong) {
			t.Errorf("JobEnd of %q: %v, %v, %v", c.env, end, ok, err)
		} else if ok && (end.Before(before.Add(c.want)) || end.After(after.Add(c.want))) {
			t.Errorf("JobEnd of %q: in %v, want %v", c.env, end.Sub(before), c.want)
		}
	}
	asked := len(readCalls(t, calls))
	if asked != 9 {
		t.Errorf("squeue was called %d times for 9 jobs", asked)
	}
	env := environment("SLURM_JOB_ID=2", "SLURM_JOB_END_TIME=1795390702")
	if end, ok, _ := JobEnd(t.Context(), env); !ok || end.Unix() != 1795390702 {
		t.Errorf("JobEnd with SLURM_JOB_END_TIME: %v, %v", end, ok)
	}
	if end, ok, err := JobEnd(t.Context(), environment("HOME=/root")); ok || err != nil {
		t.Errorf("JobEnd outside Slurm: %v", end)
	}
	if n := len(readCalls(t, calls)); n != asked {
		t.Errorf("squeue was called where it was not needed")
	}
}

// TestJobsGone reads lines as squeue 22.05 prints them.
func TestJobsGone(t *testing.T) {
	t.Parallel()
	program, calls := fakeSqueue(t, `cat <<END
7_3                                     7                   PENDING             0         
7_2                                     10                  PENDING             1         
7_1                                     9                   RUNNING             1         
7_0                                     8                   COMPLETING          1         
20                                      20                  SUSPENDED           0         
21                                      21                  COMPLETED           0         
22                                      22                  NODE_FAIL           0         
23+1                                    24                  CONFIGURING         N/A       
END`)
	j := &Jobs{program: program}
	for _, c := range []struct {
		job  string
		gone bool
	}{
		{"slurm 7_1 restart 1", false},
		{"slurm 7_1", true},    // another process runs there now
		{"slurm 7_0", false},   // counted as requeued, and ending
		{"slurm 7_2", true},    // requeued, and waiting
		{"slurm 7_3", true},    // never started
		{"slurm 7_4", true},    // forgotten
		{"slurm 7_1.3", true},  // a task of the same
		{"slurm 20", false},    // its processes are stopped, and may go on
		{"slurm 20.15", false}, //
		{"slurm 21", true},
		{"slurm 22", true},
		{"slurm 24", false}, // part of a heterogeneous job
		{"slurm 25", true},
		{"kubernetes fig3a-0", true},
		{"", true},
		{"slurm", true},
	} {
		if gone, err := j.Gone(t.Context(), c.job); gone != c.gone || err != nil {
			t.Errorf("job %q is gone: %v, %v, want %v", c.job, gone, err, c.gone)
		}
	}
	// It was called once for each new number, and always with all numbers so far.
	list := readCalls(t, calls)
	if len(list) != 6 {
		t.Errorf("squeue was called %d times for 6 numbers:\n%s", len(list), strings.Join(list, "\n"))
	}
	for _, number := range []string{"7", "20", "21", "22", "24", "25"} {
		if !strings.Contains(list[len(list)-1], number) {
			t.Errorf("the last call is not about job %s: %s", number, list[len(list)-1])
		}
	}
	j.time = j.time.Add(-jobsAge)
	if j.Gone(t.Context(), "slurm 20"); len(readCalls(t, calls)) != 7 {
		t.Error("an old answer was not asked for again")
	}
}

// TestJobsAnswers reads what sites print in place of a plain answer of squeue. The
// question is always whether job 5 is gone, which ran when it began.
func TestJobsAnswers(t *testing.T) {
	t.Parallel()
	const first = "--noheader --array --states=all --jobs=5 --Format=JobArrayID:40,JobID:20,State:20,RestartCnt:10"
	const second, last = "--jobs=5 --format=%i %T", ""
	for _, c := range []struct {
		what, commands string
		gone           bool
		err            string // "": none
		calls          []string
	}{
		{"the only job is forgotten", `echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1`, true, "",
			[]string{first}},
		{"the controller is down",
			`echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1`, false,
			"slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
			[]string{first, second, last}},
		{"it is killed", `kill -9 $$`, false, "squeue: signal: killed", []string{first, second, last}},
		{"the site prints its news first", `echo "Maintenance on 2 May"; echo; echo "5 5 RUNNING 0"`, false, "",
			[]string{first}},
		{"there are more columns", `echo "5 5 COMPLETED 0 gpu alice"`, true, "", []string{first}},
		{"another job only", `echo "6 6 RUNNING 0"`, true, "", []string{first}},
		{"nothing but news", `echo "Maintenance on 2 May"`, false,
			`squeue answers "Maintenance on 2 May", which is no list of jobs`, []string{first, second, last}},
		{"a state in another language", `echo "5 5 LAEUFT 0"`, false,
			`squeue answers "5 5 LAEUFT 0", which is no list of jobs`, []string{first, second, last}},
		{"a number that is none", `echo "5 5 RUNNING 1e999"`, false,
			`squeue answers "5 5 RUNNING 1e999", which is no list of jobs`, []string{first, second, last}},
		{"it does not know the options of the first way",
			`case "$1" in --jobs*) echo "JOBID STATE"; echo "5 RUNNING" ;; *) echo "unknown option" >&2; exit 2; esac`,
			false, "", []string{first, second}},
		{"the same, and the job is not there",
			`case "$1" in --jobs*) echo "JOBID STATE" ;; *) echo "unknown option" >&2; exit 2; esac`,
			true, "", []string{first, second}},
		{"it takes no options",
			`[ $# = 0 ] || exit 2; echo " JOBID PARTITION NAME USER ST TIME"; echo "5 gpu igcsearch alice PD 0:00"`,
			true, "", []string{first, second, last}},
		{"it takes no options, and the job runs",
			`[ $# = 0 ] || exit 2; echo " JOBID PARTITION NAME USER ST TIME"; echo "5 gpu igcsearch alice R 1:00"`,
			false, "", []string{first, second, last}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			program, calls := fakeSqueue(t, c.commands)
			gone, err := (&Jobs{program: program}).Gone(t.Context(), "slurm 5")
			if text := fmt.Sprint(err); gone != c.gone || (err != nil) != (c.err != "") || err != nil && text != c.err {
				t.Errorf("gone: %v, %v; want %v, %s", gone, err, c.gone, c.err)
			}
			if diff := cmp.Diff(c.calls, readCalls(t, calls)); diff != "" {
				t.Errorf("squeue was to be called (-) and was called (+):\n%s", diff)
			}
		})
	}
	none := &Jobs{program: "no-such-squeue"}
	if gone, err := none.Gone(t.Context(), "slurm 5"); !gone || err != nil {
		t.Errorf("without squeue a job is gone: %v, %v", gone, err)
	}
}

// TestSlurmCommandHangs: a command that does not end is ended, with what it started.
func TestSlurmCommandHangs(t *testing.T) {
	t.Parallel()
	program, _ := fakeSqueue(t, `echo begun; sleep 1000 & wait`)
	began := time.Now()
	out, err := slurmCommand(t.Context(), 200*time.Millisecond, nil, program)
	if !errors.Is(err, context.DeadlineExceeded) || string(out) != "begun\n" && len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestSubmit reads what sbatch may answer, for a coordinator that is job 101 and its
// workers. scancel writes down what it is to cancel.
func TestSubmit(t *testing.T) {
	for _, c := range []struct {
		what, sbatch string // commands for the workers' job
		scancel      string
		want         Submitted
		err          string // a pattern; "": none
		cancelled    string
	}{
		{"the number alone", `echo 102`, "", Submitted{Workers: "102"}, "", ""},
		{"with the cluster", `echo "102;big"`, "", Submitted{Workers: "102", Cluster: "big"}, "", ""},
		{"after the news of the site", `echo "Welcome. 2 nodes are down."; echo; echo 102`, "",
			Submitted{Workers: "102"}, "", ""},
		{"a sentence", `echo "Submitted batch job 102 on cluster big"`, "",
			Submitted{Workers: "102", Cluster: "big"}, "", ""},
		{"a sentence in another language", `echo "Slurm 24.05: Auftrag 102, Partition gpu2, eingereicht."`, "",
			Submitted{Workers: "102"}, "", ""},
		{"the number, and then a failure", `echo 102; echo "hook: no quota file" >&2; exit 1`, "",
			Submitted{Workers: "102", Warnings: []string{
				"sbatch named job 102, so it is taken as submitted, but then sbatch failed: hook: no quota file",
			}}, "", ""},
		{"two numbers", `echo "job 102 of account 7"`, "", Submitted{},
			`^submit the workers: sbatch answers "job 102 of account 7", and which number is that of the job cannot ` +
				`be told: it may have submitted a job, .*scancel --user=\$USER --name=igcsearch-s; ` +
				`so the coordinator was cancelled too$`, "101"},
		{"nothing", `true`, "", Submitted{}, `sbatch answers "", and which number`, "101"},
		{"a failure with a number in it", `echo "error 4711"; exit 1`, "", Submitted{},
			`^submit the workers: sbatch: exit status 1; so the coordinator was cancelled too$`, "101"},
		{"a failure, and scancel fails too", `exit 1`, `echo "scancel: error: no" >&2; exit 1`, Submitted{},
			`so end it: scancel 101 \(scancel: error: no\)$`, "101"},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			writeProgram(t, filepath.Join(dir, "sbatch"),
				`case "$*" in *--array=*) `+c.sbatch+` ;; *) echo 101; esac`)
			writeProgram(t, filepath.Join(dir, "scancel"), `echo "$@" >'`+dir+`/cancelled'
`+c.scancel)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			s := Slurm{Study: "s", Source: "s", Program: "igcsearch", Workers: 2, Coordinator: true,
				DB: filepath.Join(dir, "s.db"), Access: filepath.Join(dir, "s.access")}
			c.want.Coordinator = "101"
			jobs, err := s.Submit(t.Context())
			if diff := cmp.Diff(c.want, jobs); diff != "" {
				t.Errorf("want (-) got (+):\n%s", diff)
			}
			if (err != nil) != (c.err != "") || err != nil && !regexp.MustCompile(c.err).MatchString(err.Error()) {
				t.Errorf("error %v, want one like %s", err, c.err)
			}
			cancelled, _ := os.ReadFile(filepath.Join(dir, "cancelled"))
			if got := strings.TrimSpace(string(cancelled)); got != c.cancelled {
				t.Errorf("cancelled %q, want %q", got, c.cancelled)
			}
		})
	}
}
