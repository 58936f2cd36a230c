"""The way from an artifact to a call: load it, bind its cases, convert arguments, set the stream."""
