"""Questions whose inner values set the scales of the 8-bit model: short and long, plain and technical, of many fields."""

from typing import Final

TEXTS: Final = (
    "How can I reset my password if I lost my phone?",
    "What is the capital of France?",
    "Explain the difference between TCP and UDP in simple terms.",
    "Write a python function that sorts a list of numbers.",
    "My order has not arrived yet, where is it?",
    "Convert 5 USD to EUR",
    "Who wrote the book about the whale?",
    "Is it safe to take ibuprofen with alcohol?",
    "Translate good morning into Spanish",
    "How do I cancel my subscription and get a refund?",
    "hi",
    "thanks, that is all!",
    "Which trains go from Berlin to Vienna on 24 December 2025 after 18:30?",
    "Why does `docker run -p 8080:80 nginx` say that the port is already in use?",
    "SELECT name, COUNT(*) FROM orders WHERE total > 99.50 GROUP BY name;",
    "I am a nurse, 34 years old, and my left knee hurts when I climb stairs. Should I see a doctor or wait?",
    "Give me three arguments for and three against a four-day working week, each in one sentence.",
    "What's the weather like in São Paulo?",
    "Solve x^2 - 5x + 6 = 0 and show every step.",
    "The quarterly report says revenue grew by 12.4 % while costs fell by 3 %. What happened to the margin, and why?",
    "Turn on the lights in the kitchen, please.",
    "Error: Cannot read properties of undefined (reading 'map')",
    (
        "Summarise this contract: the tenant pays 1,200 a month, may not sublet, and gives three months' notice. "
        "The landlord repairs what breaks by age, the tenant what breaks by use. Both may end it at once if the other fails twice."
    ),
    "Does the premium plan include support by phone, or only by e-mail?",
    "https://example.com/docs/api/v2/users?limit=10&sort=desc",
    "Was bedeutet das Wort Fernweh?",
    "Tell me a joke about a mathematician and an engineer on a desert island",
    "Can I change the delivery address after the parcel was sent?",
)
