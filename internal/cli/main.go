package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

const (
	nameNodesVariable = "DFS_NAMENODES"
	defaultNameNodes  = "http://localhost:8000,http://localhost:8001,http://localhost:8002"
	defaultTimeout    = 60 * time.Second
)

// Program is one of the commands, from arguments to exit code.
type Program func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int

// Execute runs a program as the process. The first SIGINT or SIGTERM ends its
// context, so that it can stop in good order; the second ends the process.
func Execute(program Program) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	relaxTimers()
	return program(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Main is the program dfs: everything.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, name: "dfs"}
	root := a.root("A distributed file system", `dfs keeps files on several machines, so that they survive any one of them.

The files are cut into chunks, which lie on DataNodes; NameNodes know which
chunks a file consists of, and agree on it among themselves.`)
	root.AddCommand(a.clientVerbs()...)
	root.AddCommand(a.nameNode(), a.dataNode(), a.dev())
	return a.run(ctx, root, args)
}

// ClientMain is the program client: what dfs can do without the daemons.
func ClientMain(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, name: "client"}
	root := a.root("The client of DFS-Go", "client moves files to and from a DFS-Go cluster, and looks after it.")
	root.AddCommand(a.clientVerbs()...)
	return a.run(ctx, root, args)
}

// NameNodeMain is the program namenode.
func NameNodeMain(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, name: "namenode"}
	return a.exitCode(a.runNameNode(ctx, args))
}

// DataNodeMain is the program datanode.
func DataNodeMain(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, name: "datanode"}
	return a.exitCode(a.runDataNode(ctx, args))
}

// app is one run of a program: its streams and global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	name           string
	printing       sync.Mutex // held while a line goes to stderr: notices come from elsewhere

	nameNodes string
	json      bool
	verbose   bool
	timeout   time.Duration
	started   bool // the command line was right and a verb has begun
}

func (a *app) clientVerbs() []*cobra.Command {
	return []*cobra.Command{
		a.upload(), a.download(), a.cat(), a.ls(), a.stat(), a.mkdir(), a.rm(), a.mv(),
		a.nodes(), a.fsck(), a.setrep(), a.bench(), a.admin(), a.version(),
	}
}

func (a *app) root(short, long string) *cobra.Command {
	root := &cobra.Command{
		Use:               a.name,
		Short:             short,
		Long:              long,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRun:  func(*cobra.Command, []string) { a.started = true },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetHelpCommand(helpCommand(root))
	flags := root.PersistentFlags()
	flags.StringVar(&a.nameNodes, "namenodes", envOr(nameNodesVariable, defaultNameNodes), "base URLs of NameNodes, comma separated; $"+nameNodesVariable)
	flags.BoolVar(&a.json, "json", false, "print JSON")
	flags.DurationVar(&a.timeout, "timeout", defaultTimeout, "of one metadata call with its retries; never cuts off a transfer")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say more: error codes, and what is tried again and why")
	return root
}

// helpCommand is that of cobra, except that it refuses what there is no help for.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			command, rest, err := root.Find(args)
			if err != nil || command == nil || len(rest) > 0 {
				return usageErrorf("there is no help for %q; `%s --help` lists the commands", strings.Join(args, " "), root.Name())
			}
			return command.Help()
		},
	}
}

func (a *app) run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	command, err := root.ExecuteContextC(ctx)
	if err != nil && !a.started {
		err = usageErrorf("%s; see `%s --help`", plainFlagError(err), command.CommandPath())
	}
	return a.exitCode(err)
}

// exitCode prints the error, if any, as the one line that a run ends with.
func (a *app) exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		a.complain(err)
		return exitUsage
	case errors.Is(err, errReported):
		return exitFailed
	case errors.Is(err, errMisused):
		return exitUsage
	}
	a.complain(err)
	return exitFailed
}

// complain prints one error on one line.
func (a *app) complain(err error) {
	code := ""
	if a.verbose && dfs.CodeOf(err) != "" {
		code = fmt.Sprintf(" (%s)", dfs.CodeOf(err))
	}
	a.printError(oneLine(err.Error()) + code)
}

// notice tells, on one line, something that is no failure.
func (a *app) notice(message string) {
	a.printError(oneLine(message))
}

func (a *app) printError(line string) {
	a.printing.Lock()
	defer a.printing.Unlock()
	fmt.Fprintf(a.stderr, "%s: %s\n", a.name, line)
}

// remotePath reads a path from the command line.
func remotePath(text string) (dfs.Path, error) {
	path, err := dfs.ParsePath(text)
	if err != nil {
		return path, usageErrorf("%s", err)
	}
	return path, nil
}

// errReported fails a run whose errors have been printed already.
var errReported = errors.New("some of it failed")

// errMisused is errReported where one of the errors was the caller's mistake.
var errMisused = errors.New("some of it makes no sense")

// usageError is the caller's mistake in the command line itself.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// oneLine keeps a message from other machines from playing with the terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// plainFlagError drops what the flag packages let through of the parsers they
// use: `strconv.ParseInt: parsing "x": invalid syntax`.
func plainFlagError(err error) string {
	text := strings.TrimSpace(err.Error())
	if i := strings.Index(text, ": strconv."); i >= 0 {
		if strings.HasSuffix(text, "value out of range") {
			return text[:i] + ": the number is too large"
		}
		return text[:i] + ": that is not a number"
	}
	text = strings.Replace(text, ": parse error", ": that is not a value of this kind", 1)
	return strings.Replace(text, "time: invalid duration ", "write it like 60s, not ", 1)
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// client makes the client of this run. Change may adapt its configuration.
func (a *app) client(change ...func(*client.Config)) (*client.Client, error) {
	if a.timeout <= 0 {
		return nil, usageErrorf("--timeout must be above zero, like 60s")
	}
	config := client.Config{NameNodes: splitList(a.nameNodes), Timeout: a.timeout, Notice: a.notice}
	if a.verbose {
		config.Logger = hclog.New(&hclog.LoggerOptions{Name: a.name, Level: hclog.Debug, Output: a.stderr})
	}
	for _, f := range change {
		f(&config)
	}
	c, err := client.New(config)
	if err != nil {
		return nil, usageErrorf("%s", err)
	}
	return c, nil
}

// splitList splits at commas, and forgives spaces and a comma at the end.
func splitList(list string) []string {
	var items []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// with runs a verb with a client of its own.
func (a *app) with(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return f(command.Context(), c, args)
	}
}

// each runs f for every argument, reports what fails, and goes on.
func (a *app) each(ctx context.Context, args []string, f func(arg string) error) error {
	if len(args) == 1 {
		return f(args[0])
	}
	failed, misused := false, false
	for _, arg := range args {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f(arg); err != nil {
			a.complain(err)
			var usage *usageError
			misused = misused || errors.As(err, &usage)
			failed = true
		}
	}
	switch {
	case misused:
		return errMisused
	case failed:
		return errReported
	}
	return nil
}
