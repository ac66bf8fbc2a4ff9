package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// ErrorBody is a failure on the wire.
type ErrorBody struct {
	Code    dfs.Code `json:"code"`
	Message string   `json:"message"`
}

// ErrorReply is the body of every answer that is not 2xx.
type ErrorReply struct {
	Error ErrorBody `json:"error"`
}

// statuses is the one table between codes and HTTP. Codes share statuses, so
// the way back goes by the code in the body and by this table only when the
// answer has none, as from a proxy.
var statuses = []struct {
	code   dfs.Code
	status int
}{
	{dfs.Invalid, http.StatusBadRequest},
	{dfs.Unauthenticated, http.StatusUnauthorized},
	{dfs.Forbidden, http.StatusForbidden},
	{dfs.NotFound, http.StatusNotFound},
	{dfs.MethodNotAllowed, http.StatusMethodNotAllowed},
	{dfs.Exists, http.StatusConflict},
	{dfs.NotEmpty, http.StatusConflict},
	{dfs.IsDirectory, http.StatusConflict},
	{dfs.NotDirectory, http.StatusConflict},
	{dfs.Conflict, http.StatusPreconditionFailed},
	{dfs.WrongCluster, http.StatusMisdirectedRequest},
	{dfs.TooLarge, http.StatusRequestEntityTooLarge},
	{dfs.OverLimit, http.StatusTooManyRequests},
	{dfs.NoSpace, http.StatusInsufficientStorage},
	{dfs.Unavailable, http.StatusServiceUnavailable},
	{dfs.NotLeader, http.StatusServiceUnavailable}, // 307 when the leader is known
	{dfs.UnknownOutcome, http.StatusServiceUnavailable},
	{dfs.Timeout, http.StatusGatewayTimeout},
	{dfs.Internal, http.StatusInternalServerError},
	{dfs.Corrupt, http.StatusInternalServerError},
}

// StatusOf returns the HTTP status of a code.
func StatusOf(code dfs.Code) int {
	for _, row := range statuses {
		if row.code == code {
			return row.status
		}
	}
	return http.StatusInternalServerError
}

func codeOfStatus(status int) dfs.Code {
	for _, row := range statuses {
		if row.status == status {
			return row.code
		}
	}
	if status >= 400 && status < 500 {
		return dfs.Invalid
	}
	return dfs.Internal
}

// BodyOf turns an error into what may be told of it.
func BodyOf(err error) ErrorBody {
	return ErrorBody{Code: dfs.CodeOf(err), Message: dfs.MessageOf(err)}
}

// Err turns a body back into the error it was made of.
func (b ErrorBody) Err() error { return &dfs.Error{Code: b.Code, Message: b.Message} }

// WriteError answers a request with err. Headers that the failure needs
// besides (Location, Retry-After) are set before.
func WriteError(w http.ResponseWriter, err error) {
	body := BodyOf(err)
	status := StatusOf(body.Code)
	if body.Code == dfs.NotLeader && w.Header().Get("Location") != "" {
		status = http.StatusTemporaryRedirect
	}
	WriteJSON(w, status, ErrorReply{body})
}

// WriteJSON answers a request with body.
func WriteJSON(w http.ResponseWriter, status int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		status = http.StatusInternalServerError
		encoded = []byte(`{"error":{"code":"internal","message":"the answer could not be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(encoded)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(encoded, '\n')) // the caller is gone when this fails
}

const maxErrorBody = 64 << 10 // bytes

// ReadError turns an answer that is not 2xx into an error with the code and
// the sentence that the server gave. It reads, but does not close, the body.
func ReadError(response *http.Response) error {
	var reply ErrorReply
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorBody)) // what was read is judged
	if json.Unmarshal(body, &reply) == nil && reply.Error.Code != "" {
		return reply.Error.Err()
	}
	host := "the server"
	if response.Request != nil {
		host = response.Request.URL.Host
	}
	return dfs.Errorf(codeOfStatus(response.StatusCode), "%s answered %s", host, response.Status)
}

// DecodeJSON reads one JSON value of at most limit bytes into v. Unknown
// fields are refused when strict; anything after the value always.
func DecodeJSON(body io.Reader, limit int64, strict bool, v any) error {
	limited := &io.LimitedReader{R: body, N: limit + 1}
	var content bytes.Buffer
	_, err := content.ReadFrom(limited)
	if limited.N <= 0 {
		return dfs.Errorf(dfs.TooLarge, "the body is longer than %d bytes", limit)
	}
	if err != nil {
		return describeJSON(err)
	}
	if !strict && json.Unmarshal(content.Bytes(), v) == nil {
		return nil
	}
	return describeJSON(decodeValue(&content, strict, v)) // knows better what is wrong
}

func decodeValue(content io.Reader, strict bool, v any) error {
	decoder := json.NewDecoder(content)
	if strict {
		decoder.DisallowUnknownFields()
	}
	if err := decoder.Decode(v); err != nil {
		return err
	}
	if _, more := decoder.Token(); more != io.EOF {
		return errors.New("there is something after the JSON value")
	}
	return nil
}

func describeJSON(err error) error {
	var coded *dfs.Error
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded):
		return err
	case errors.Is(err, io.EOF):
		return dfs.Errorf(dfs.Invalid, "the body is empty; JSON is needed")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return dfs.Errorf(dfs.Invalid, "the body ends in the middle of the JSON")
	case errors.As(err, &wrongType):
		return dfs.Errorf(dfs.Invalid, "field %q cannot be a JSON %s", wrongType.Field, wrongType.Value)
	}
	return dfs.Errorf(dfs.Invalid, "the body is not the JSON that is needed: %s", strings.TrimPrefix(err.Error(), "json: "))
}
