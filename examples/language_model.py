"""A tiny language model: which training sentences, and which tokens in them, made it say this?"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import whence

animals = {"cat": "meows", "dog": "barks", "cow": "moos", "hen": "clucks", "fox": "barks"}
sentences = [
    f"The {first} {animals[first]} and the {second} {animals[second]}"
    for first in animals
    for second in animals
    if first != second
]
sentences[5] = "The dog meows and the cow moos"  # a mistake in the training data
words = sorted({word for sentence in sentences for word in sentence.split()})
number = {word: i for i, word in enumerate(words)}
texts = [{"input_ids": [number[word] for word in s.split()]} for s in sentences]

torch.manual_seed(0)
config = GPT2Config(
    vocab_size=len(words), n_positions=8, n_embd=16, n_layer=2, n_head=2,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
model = GPT2LMHeadModel(config)
ids = torch.tensor([text["input_ids"] for text in texts])
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(200):
    optimizer.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()

objective = whence.from_transformers(model.eval(), texts, params=lambda name, p: "mlp" in name)
query = [{"input_ids": [number[word] for word in ["The", "dog", "barks"]]}]
explanation = whence.explain(objective, query, k=3, solver=whence.EKFAC())
print("The dog barks: which sentence taught the model otherwise?")
worst = explanation.harmful[0]
print(f"  {sentences[worst.position]}")
parts = whence.influence_by_token(
    objective, query, indices=[worst.position], solver=whence.EKFAC()
).values[0, 0]
print("and which word in it?")
print(f"  {sentences[worst.position].split()[1 + parts.argmin()]}")
explanation.report("language_model.html", decode=lambda token: words[token[0]] + " ")
