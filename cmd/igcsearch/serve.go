package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/live"
)

type serveOptions struct {
	studies   []string
	set       []string
	db        string
	data      string
	split     string // that the page shows; "": what each study says
	listen    string
	access    string // "": only the page
	advertise string // URL; "": by the name of this machine
	hosts     []string
	cert, key string
	untilDone bool
}

func newServeCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve [STUDY...]",
		Short: "Show the studies of a database as a web page; give out trials to workers on other machines",
		Long: `serve shows how the studies of a database go on, in a browser: progress and time
left, accuracy against M, learning curves, what runs where, failures, hours used,
and downloads. It prints the address of the page and serves until it is
interrupted. The page only reads the database. It can be opened before a study
starts, and stays when the study has ended.

With --access it is a coordinator too. It opens the database, plans each STUDY, and
gives out the trials to workers on other machines (igcsearch worker). They train by
the same rules, and to the same bits, as igcsearch run. It writes its address and a
secret token into FILE, which only its owner can read. Everybody who has the file can
train and write results. Started again with the same database, it goes on with the
studies that it had; workers train on meanwhile.

Without --listen only this machine can reach it. To open the page elsewhere,
forward the port: ssh -L 8080:localhost:PORT MACHINE. Everybody who can reach the
address of a page alone can read the results. A coordinator asks other machines for
the token: http://ADDRESS/?token=TOKEN.

The page can be behind a proxy, below any path that the proxy takes away, such as that
of JupyterHub. A proxy on this machine may pass on the name that browsers use; then
give this name by --host. A coordinator with a --host asks everybody for the token.`,
		Example: `  igcsearch serve

  # an address that stays the same
  igcsearch serve --db igcsearch.db --listen 127.0.0.1:8080

  # behind a proxy on this machine that is https://jupyter.example.org
  igcsearch serve --listen 127.0.0.1:8080 --host jupyter.example.org

  # a coordinator for workers on other machines, which see the file too
  igcsearch serve quickstart --access quickstart.access --listen :0 --until-done`,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.studies = args
			return runServe(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	addSet(cmd, &o.set, "override one setting of each STUDY")
	addSplit(cmd, &o.split, "split",
		"the pictures whose accuracy the page shows of the studies that have them (default what each study says)")
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0",
		"the `ADDRESS` to listen on, HOST:PORT; port 0 is a free one, no HOST is all of this machine")
	flags.StringVar(&o.access, "access", "", "give out trials, and write address and token into this `FILE`")
	flags.StringVar(&o.advertise, "advertise", "",
		"the `URL` by which workers reach this address (default by the name of this machine)")
	flags.StringArrayVar(&o.hosts, "host", nil,
		"a `NAME` by which a proxy on this machine asks for the page (may be repeated)")
	flags.StringVar(&o.cert, "tls-cert", "", "serve HTTPS with this certificate, a PEM `FILE`; workers trust it")
	flags.StringVar(&o.key, "tls-key", "", "the key of the certificate, a PEM `FILE`")
	flags.BoolVar(&o.untilDone, "until-done", false, "end when all studies are done and all workers have left")
	return cmd
}

func (o serveOptions) check() error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return fmt.Errorf("--listen %q: want HOST:PORT, like 127.0.0.1:8080", o.listen)
	}
	if (o.cert == "") != (o.key == "") {
		return errors.New("--tls-cert and --tls-key belong together: give both")
	}
	u, err := url.Parse(o.advertise)
	if o.advertise != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return fmt.Errorf("--advertise %q: want a URL, like http://node1:8080", o.advertise)
	}
	for _, host := range o.hosts {
		if u, err := url.Parse("http://" + host); err != nil || host == "" || u.Hostname() != host {
			return fmt.Errorf("--host %q: want a name without a port or a path, like jupyter.example.org", host)
		}
	}
	if o.access != "" {
		return nil
	}
	for _, extra := range []struct {
		given bool
		name  string
	}{
		{len(o.studies) > 0, "STUDY"}, {len(o.set) > 0, "--set"},
		{o.advertise != "", "--advertise"}, {o.untilDone, "--until-done"},
	} {
		if extra.given {
			return fmt.Errorf("%s is for a coordinator: give --access too", extra.name)
		}
	}
	return nil
}

func runServe(ctx context.Context, o serveOptions, stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	if err := notAccess(o.db); err != nil {
		return err
	}
	if _, _, err := sourceDate(); err != nil { // of the figures
		return err
	}
	var certificates []tls.Certificate
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return fmt.Errorf("serve: --tls-cert %s: %w", o.cert, err)
		}
		certificates = append(certificates, pair)
	}
	mux := http.NewServeMux()
	live.New(&watched{path: o.db, split: o.split}).Register(mux)
	if o.access != "" {
		return runCoordinator(ctx, o, mux, certificates, stdout, stderr)
	}
	listener, err := o.bind(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "%s/\n", o.urlOf(listener.Addr().String())); err != nil {
		listener.Close()
		return err
	}
	if err := live.Serve(ctx, listener, live.Guard{Hosts: o.hosts}.Handler(mux), certificates); err != nil {
		return err
	}
	return ctx.Err()
}

func (o serveOptions) bind(ctx context.Context) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return nil, fmt.Errorf("serve: %w: give another --listen", err)
	}
	return listener, nil
}
