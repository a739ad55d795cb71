"""The five classical proposal methods that the paper compares with (section 4), one module each."""
